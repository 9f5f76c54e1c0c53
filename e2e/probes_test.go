//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// A patient is a pod that the kubelet asks in every way there is but exec. Who
// answers at its ports 7071 and 7072 is the test's own, in the pod's network.
const patientYAML = `
apiVersion: v1
kind: Pod
metadata: {name: patient, namespace: market}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - name: web
    image: podnet.dev/shop:lab
    imagePullPolicy: Never
    args: [--http=:8080]
    startupProbe: {tcpSocket: {port: 7071}, periodSeconds: 1, failureThreshold: 60}
    readinessProbe: {httpGet: {path: /readyz, port: 7071}, periodSeconds: 1, failureThreshold: 2}
    livenessProbe: {tcpSocket: {port: 7071}, periodSeconds: 1, failureThreshold: 3}
  - name: grpc
    image: podnet.dev/shop:lab
    imagePullPolicy: Never
    args: [--http=:8081]
    startupProbe: {tcpSocket: {port: 7072}, periodSeconds: 1, failureThreshold: 60}
    readinessProbe: {grpc: {port: 7072}, periodSeconds: 1, failureThreshold: 2}
    livenessProbe: {httpGet: {path: /livez, port: 7071}, periodSeconds: 1, failureThreshold: 3}
`

// TestProbesReachTheApp steers all that a pod serves to a laptop that says yes to
// anything: the kubelet hears what the pod's own programs say, and when they say
// nothing any more.
func TestProbesReachTheApp(t *testing.T) {
	market(t, 0)
	file := filepath.Join(t.TempDir(), "patient.yaml")
	write(t, file, patientYAML)
	alice.connect(t, "-n", "market")
	laptop := &clinic{name: "laptop"}
	laptop.open(t, laptopNetwork.listen(t, "127.0.0.1:3000"), laptopNetwork.listen(t, "127.0.0.1:3001"))
	customer := podsNetwork(t, podAddress(t, "app=web"))

	for what, flags := range map[string][]string{"whole ports": nil, "--path '*'": {"--path", "*"}} {
		t.Run(what, func(t *testing.T) {
			kubectl("apply", "-f", file).must(t)
			t.Cleanup(func() { kubectl("delete", "-f", file).must(t) })
			ip := patientAddress(t)
			pod := podsNetwork(t, ip)
			own := &clinic{name: "app"}
			dies := own.open(t, pod.listen(t, ":7071"), pod.listen(t, ":7072"))
			eventually(t, time.Minute, "the patient is well", func() error { return patientIs(t, "True") })

			alice.steer(t, append([]string{"pod/patient", "7071:3000", "7072:3001"}, flags...)...)
			steered := func() error {
				return errors.Join(customer.hello("http://"+ip+":7071/readyz", laptop.name), customer.hello("http://"+ip+":7072/", laptop.name))
			}
			eventually(t, 5*time.Second, "customers come to the laptop", steered)
			before, atLaptop, state := own.seen(), laptop.seen(), patientState(t)
			const span = 6 * time.Second
			time.Sleep(span)
			if err := steered(); err != nil {
				t.Errorf("customers no longer come to the laptop: %v", err)
			}
			if err := same(state, patientState(t)); err != nil {
				t.Errorf("the patient has %v", err)
			}
			var text []string
			for _, way := range []string{"/readyz", "/livez", grpcCheck} {
				n, stolen := own.seen()[way]-before[way], laptop.seen()[way]-atLaptop[way]
				text = append(text, fmt.Sprintf("%s %d and %d", way, n, stolen))
				if n < 4 || stolen > 0 { // one comes each second
					t.Errorf("of the probes for %s the app saw %d, the laptop %d", way, n, stolen)
				}
			}
			report(t, fmt.Sprintf("[50] probes within %v at the app and at the laptop, %s steered", span, what), strings.Join(text, ", "))

			died := time.Now()
			dies()
			eventually(t, 15*time.Second, "the kubelet sees that the app is dead", func() error { return patientIs(t, "False") })
			report(t, "[50] an app that died is not ready, "+what+" steered, after", time.Since(died).Round(100*time.Millisecond))
			eventually(t, 30*time.Second, "the kubelet restarts both containers, one by TCP and one by HTTP", func() error {
				if got := kubectl("get", "pod", "-n", "market", "patient", "-o", "jsonpath={.status.containerStatuses[*].restartCount}").must(t); strings.Contains(got, "0") {
					return fmt.Errorf("they were restarted %s times", got)
				}
				return nil
			})
			alice.podnet("steer", "stop", "--all").must(t)
		})
	}
}

func patientAddress(t testing.TB) (ip string) {
	t.Helper()
	eventually(t, 30*time.Second, "the patient has an address", func() error {
		if ip = kubectl("get", "pod", "-n", "market", "patient", "-o", "jsonpath={.status.podIP}").must(t); ip == "" {
			return errors.New("none yet")
		}
		return nil
	})
	return ip
}

// patientState says whether the patient is ready, since when, and how often its
// containers were restarted.
func patientState(t testing.TB) string {
	t.Helper()
	return kubectl("get", "pod", "-n", "market", "patient", "-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].status} since {.status.conditions[?(@.type=="Ready")].lastTransitionTime}, restarts {.status.containerStatuses[*].restartCount}`).must(t)
}

func patientIs(t testing.TB, ready string) error {
	t.Helper()
	if s := patientState(t); !strings.HasPrefix(s, ready+" ") {
		return fmt.Errorf("it is ready: %s", s)
	}
	return nil
}

// grpcCheck is what the kubelet asks by gRPC.
const grpcCheck = grpc_health_v1.Health_Check_FullMethodName

// clinic says hello, also that it is well, and counts how often the kubelet asked.
type clinic struct {
	name string
	mu   sync.Mutex
	all  map[string]int // by path
}

// open serves until the function it returns is called, or the test ends.
func (c *clinic) open(t testing.TB, at ...net.Listener) (dies func()) {
	byGRPC := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(byGRPC, health.NewServer())
	c.all = map[string]int{}
	s := &http.Server{Protocols: bothHTTP(), ReadHeaderTimeout: 30 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.UserAgent(), "kube-probe/") {
			c.mu.Lock()
			c.all[r.URL.Path]++
			c.mu.Unlock()
		}
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			byGRPC.ServeHTTP(w, r)
			return
		}
		fmt.Fprintf(w, "hello from %s\n", c.name)
	})}
	var wg sync.WaitGroup
	for _, l := range at {
		wg.Go(func() { _ = s.Serve(l) })
	}
	dies = func() { _ = s.Close(); wg.Wait() }
	t.Cleanup(dies)
	return dies
}

func (c *clinic) seen() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.all)
}

// hello asks at a URL from the network and wants an answer of that name.
func (n network) hello(url, name string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.dial}}
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if want := "hello from " + name + "\n"; err != nil || string(b) != want {
		return fmt.Errorf("%s says %q, %v; want %q", url, b, err, want)
	}
	return nil
}
