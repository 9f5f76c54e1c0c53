// Package apiserver gives a test a real Kubernetes API server with nothing
// behind it but etcd: enough for what the API server itself decides (schemas,
// roles, admission) and for programs that only talk to it. No node, no pod.
package apiserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
)

// startLimit is how long etcd and the API server together may take: some 8 s
// on two busy cores.
const startLimit = 90 * time.Second

const adminToken = "admin"

// Server is a running API server. It ends with the test that started it.
type Server struct {
	config  *rest.Config
	process *os.Process
}

// Start runs an API server on loopback until the test ends, with flags beside the
// usual ones. Where the lab's programs are missing it skips the test.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	kube := program(t, "kube-apiserver")
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("no etcd on this machine (apt-get install etcd-server)")
	}
	dir := t.TempDir()
	ports := freePorts(t, 3)
	etcdURL := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	Run(t, etcd, "--data-dir", filepath.Join(dir, "etcd"),
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", ports[1]))

	write(t, dir, "tokens.csv", adminToken+`,admin,admin,"system:masters"`+"\n")
	write(t, dir, "sa.key", serviceAccountKey(t))
	process := Run(t, kube, append(flags, "--etcd-servers", etcdURL, "--secure-port", fmt.Sprint(ports[2]), "--bind-address", "127.0.0.1",
		"--cert-dir", filepath.Join(dir, "certs"), "--token-auth-file", filepath.Join(dir, "tokens.csv"),
		"--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16,fd00:10:96::/112",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", filepath.Join(dir, "sa.key"),
		"--service-account-signing-key-file", filepath.Join(dir, "sa.key"), "--endpoint-reconciler-type", "none",
		"--advertise-address", "192.0.2.1")...)

	s := &Server{process: process, config: &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", ports[2]),
		BearerToken:     adminToken,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, // its own, self-signed, on loopback
		QPS:             -1,
	}}
	s.wait(t)
	return s
}

// Config is how to reach the server as its admin.
func (s *Server) Config() *rest.Config { return rest.CopyConfig(s.config) }

// ConfigAs is how to reach the server as somebody else.
func (s *Server) ConfigAs(user string, groups ...string) *rest.Config {
	c := s.Config()
	c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append([]string{"system:authenticated"}, groups...)}
	return c
}

// Admin is a client that may do everything.
func (s *Server) Admin(t testing.TB) client.Client { return newClient(t, s.Config()) }

// As is a client with another identity.
func (s *Server) As(t testing.TB, user string, groups ...string) client.Client {
	return newClient(t, s.ConfigAs(user, groups...))
}

// Scheme knows Kubernetes' objects and podnet's.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(s))
	utilruntime.Must(podnet.AddToScheme(s))
	return s
}

func newClient(t testing.TB, c *rest.Config) client.Client {
	t.Helper()
	cl, err := client.New(c, client.Options{Scheme: Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// Install applies podnet's manifests as an install would, the gateway's
// StatefulSet included, and waits until the CRDs are served and the admission
// policies refuse.
func (s *Server) Install(t testing.TB, o deploy.Options) {
	t.Helper()
	objects, err := deploy.Render(o)
	if err != nil {
		t.Fatal(err)
	}
	admin := s.Admin(t)
	for _, u := range objects {
		Apply(t, admin, u)
	}
	// The API server learns of policies in rounds, so that the first may act a
	// second before the last. Of what the last asks even the admin can lack
	// something: an owner of the rule. Exposures are refused to the gateway.
	meta := metav1.ObjectMeta{Name: "canary", Namespace: cmp.Or(o.Namespace, deploy.DefaultNamespace)}
	gateway := "system:serviceaccount:" + meta.Namespace + ":" + deploy.ServiceAccountName
	for reason, forged := range map[string]struct {
		by     client.Client
		canary client.Object
	}{
		deploy.ReasonOwner: {admin, &podnet.Peer{ObjectMeta: meta, Spec: podnet.PeerSpec{User: "nobody", PublicKey: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", LeaseSeconds: 60, Renew: 1}}},
		deploy.ReasonSteer: {admin, &podnet.SteeringRule{ObjectMeta: meta, Spec: podnet.SteeringRuleSpec{User: "admin", Peer: "canary", Renew: 1, Rule: "canary", Pod: "canary", PodUID: "canary", Port: 80, RelayPort: 1024}}},
		deploy.ReasonExpose: {s.As(t, gateway), &podnet.Exposure{ObjectMeta: meta, Spec: podnet.ExposureSpec{User: gateway, Peer: "canary", Renew: 1,
			Ports: []podnet.ExposurePort{{Port: 80, Protocol: podnet.ExposureTCP, RelayPort: 1024}}}}},
	} {
		Eventually(t, 30*time.Second, "the admission policies refuse: "+reason, func() error {
			err := forged.by.Create(context.Background(), forged.canary.DeepCopyObject().(client.Object), client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), reason) {
				return fmt.Errorf("not refused: %v", err)
			}
			return nil
		})
	}
}

// Apply applies one object server-side.
func Apply(t testing.TB, c client.Client, u *unstructured.Unstructured) {
	t.Helper()
	Eventually(t, 20*time.Second, "apply "+u.GetKind()+" "+u.GetName(), func() error {
		return c.Apply(context.Background(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("podnet"), client.ForceOwnership)
	})
}

// Eventually asks until f has no error any more, and fails the test with the
// last one when that takes too long.
func Eventually(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *Server) wait(t testing.TB) {
	t.Helper()
	c := s.Config()
	c.GroupVersion, c.NegotiatedSerializer = &podnet.GroupVersion, clientgoscheme.Codecs
	rc, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, startLimit, "API server is ready", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return rc.Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// program finds one of the lab's programs, Kubernetes' and CoreDNS: in
// PODNET_LAB_BIN, or in the lab's cache.
func program(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("PODNET_LAB_BIN"); dir != "" {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no cache folder: ", err)
	}
	var found string
	_ = filepath.WalkDir(filepath.Join(cache, "podnet-lab"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() == name {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if found == "" {
		t.Skipf("no %s: build the lab's programs with `bin/lab build`, or name their folder in PODNET_LAB_BIN", name)
	}
	return found
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Run starts a program that ends with the test. Its output is shown when the
// test failed.
func Run(t testing.TB, path string, args ...string) *os.Process {
	t.Helper()
	var out tail
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s said last:\n%s", filepath.Base(path), out.b)
		}
	})
	return cmd.Process
}

// tail keeps the last few kilobytes written to it. exec serialises the writes.
type tail struct{ b []byte }

func (w *tail) Write(p []byte) (int, error) {
	const keep = 4096
	w.b = append(w.b, p...)
	if len(w.b) > keep {
		w.b = w.b[len(w.b)-keep:]
	}
	return len(p), nil
}

func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at the end, so that no port comes twice
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func serviceAccountKey(t testing.TB) string {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}))
}
