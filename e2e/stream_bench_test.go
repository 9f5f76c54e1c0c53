//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ways are iperf3's words for the two directions.
var ways = []struct {
	name  string
	flags []string
}{{"up", nil}, {"down", []string{"--reverse"}}}

// throughput is what one connection of iperf3 moves, in bits per second. CUBIC is what
// most machines have; see speeds.
func (m machine) throughput(t testing.TB, lasts time.Duration, args ...string) float64 {
	t.Helper()
	all := append([]string{"iperf3", "-J", "-C", "cubic", "-O", "1", "-t", fmt.Sprint(int(lasts.Seconds())), "-c"}, args...)
	var r struct {
		End struct {
			Got struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(m.cmd(all...).must(t)), &r); err != nil {
		t.Fatal(err)
	}
	return r.End.Got.Bits
}

// middle is the median.
func middle(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// carried is how fast a web server's answer comes, or takes what it is sent, in bits per
// second.
func (m machine) carried(t testing.TB, way, at string) float64 {
	t.Helper()
	const size = 300_000_000
	script := fmt.Sprintf("curl -sS --max-time 100 -o /dev/null -w '%%{speed_download}' 'http://%s/blob?size=%d'", at, size)
	if way == "up" {
		script = fmt.Sprintf("head -c %d /dev/zero | curl -sS --max-time 100 -o /dev/null -w '%%{speed_upload}' -T - http://%s/sink", size, at)
	}
	bytes, err := strconv.ParseFloat(m.sh(script).must(t), 64)
	if err != nil {
		t.Fatal(err)
	}
	return 8 * bytes
}

// BenchmarkAPIServerPath compares a session whose only path is the API server with what
// `kubectl port-forward` itself moves to the same pod: no WireGuard, no stack.
//
//	go test -tags e2e -run '^$' -bench APIServerPath -benchtime 3x ./e2e
func BenchmarkAPIServerPath(b *testing.B) {
	calm(b)
	pod := kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}").must(b)
	name, ip, _ := strings.Cut(pod, " ")
	const port = "15201"
	alice.connect(b, "-n", "shop", "--path", "apiserver")
	forward := alice.cmd("kubectl", "port-forward", "-n", "shop", "pod/"+name, port+":8080").exec(b.Context())
	if err := forward.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = forward.Process.Kill(); _ = forward.Wait() })
	eventually(b, 10*time.Second, "kubectl listens", func() error {
		return alice.sh("ss -Hltn 'sport = :" + port + "' | grep -q .").run(b.Context())
	})
	plain, podnet := map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		for _, way := range ways {
			plain[way.name] = append(plain[way.name], alice.carried(b, way.name, "127.0.0.1:"+port))
			podnet[way.name] = append(podnet[way.name], alice.carried(b, way.name, ip+":8080"))
		}
	}
	for _, way := range ways {
		was, is := middle(plain[way.name]), middle(podnet[way.name])
		report(b, "one connection "+way.name+", kubectl port-forward and the path apiserver",
			fmt.Sprintf("%.2f and %.2f Gbit/s: %.2f times (0.8)", was/1e9, is/1e9, is/was))
	}
}

// BenchmarkLossyLine has one connection on a line with a round trip of 20 ms that loses
// one packet of two thousand, beside plain TCP to the node, on each path, and on the one
// that podnet comes to by itself.
//
//	go test -tags e2e -run '^$' -bench LossyLine -benchtime 3x ./e2e
func BenchmarkLossyLine(b *testing.B) {
	calm(b)
	pod := podAddress(b, "app=db")
	serve(b, "")
	serve(b, netns(b, pod))
	lab("wire", "laptop", "--delay", "10ms", "--loss", "0.05%").must(b)
	node := kubectl("get", "node", "node1", "-o", `jsonpath={.status.addresses[0].address}`).must(b)
	got := map[string][]float64{}
	for b.Loop() {
		for _, on := range []string{"plain TCP", "udp", "apiserver", "podnet's choice"} {
			to, more := node, []string(nil)
			switch on {
			case "plain TCP":
			case "podnet's choice":
				alice.connect(b, "-n", "shop")
				to, more = pod, []string{"-O", "30"}
				time.Sleep(10 * time.Second) // by then the round trips are known
			default:
				alice.connect(b, "-n", "shop", "--path", on)
				to = pod
			}
			for _, way := range ways {
				args := slices.Concat([]string{to}, way.flags, more)
				got[on+", "+way.name] = append(got[on+", "+way.name], alice.throughput(b, 15*time.Second, args...))
			}
			if on != "plain TCP" {
				alice.podnet("disconnect").must(b)
			}
		}
	}
	for what, all := range got {
		report(b, "20 ms, 0.05 % loss, one connection, "+what, fmt.Sprintf("%.0f Mbit/s of %.0f", middle(all)/1e6, all))
	}
}
