//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// speeds is what iperf3 gets down from an address and up to it, at the same time,
// in bits per second. So many connections, each with its own luck, that chance
// alone moves the sums by less than a tenth.
func (m machine) speeds(t *testing.T, addr string) map[string]float64 {
	t.Helper()
	secs := fmt.Sprint(int(lasting(25*time.Second, 60*time.Second).Seconds()))
	// CUBIC is what machines have unless somebody chose (Linux, macOS, Windows);
	// a host of the lab with BBR would say little of them.
	args := []string{"iperf3", "-c", addr, "-J", "--bidir", "-P", "16", "-O", "2", "-t", secs, "-C", "cubic"}
	type sum struct {
		Bits float64 `json:"bits_per_second"`
	}
	var r struct {
		End struct {
			Up   sum `json:"sum_received"`
			Down sum `json:"sum_received_bidir_reverse"`
		}
	}
	if err := json.Unmarshal([]byte(m.cmd(args...).must(t)), &r); err != nil {
		t.Fatal(err)
	}
	return map[string]float64{"down": r.End.Down.Bits, "up": r.End.Up.Bits}
}

// TestLongLossyLine compares the tunnel with plain TCP over the same line: a
// round trip of 150 ms that loses 2 % of the packets each way.
func TestLongLossyLine(t *testing.T) {
	alice.parallel(t)
	calm(t)
	db := podAddress(t, "app=db")
	serve(t, "")
	serve(t, netns(t, db))
	lab("wire", "laptop", "--delay", "75ms", "--loss", "2%").must(t)
	node := kubectl("get", "node", "node1", "-o", `jsonpath={.status.addresses[0].address}`).must(t)
	plain := alice.speeds(t, node)
	alice.connect(t, "-n", "shop", "--path", "udp")
	through := alice.speeds(t, db)
	for _, way := range []string{"down", "up"} {
		got := through[way]
		share := got / plain[way]
		measure.AtLeast(t, fmt.Sprintf("[40] 150 ms, 2 %% loss, %s: udp, %.2f Mbit/s, of plain TCP's %.2f", way, got/1e6, plain[way]/1e6), measure.Percent(share*100), 70)
		least := 0.7
		if !long {
			least = 0.5 // of few seconds, chance has a large part
		}
		if share < least {
			t.Errorf("%s: %.2f Mbit/s is %.0f %% of plain TCP", way, got/1e6, share*100)
		}
	}
	if moves := alice.connection(t).Path; moves.Kind != "udp" {
		t.Errorf("the path is %+v", moves)
	}
	alice.podnet("disconnect").must(t)

	alice.connect(t, "-n", "shop", "--path", "apiserver")
	session := alice.start(t, "echo", db+":5432")
	report(t, "[40] 150 ms, 2 % loss, apiserver: connections",
		alice.role("connections", "db-0.db.shop.svc.cluster.local:5432", "100", "10").must(t))
	sum := alice.cmd("curl", "-sS", "--max-time", "60", "http://web.shop/blob?size=1M", "-o", "/dev/null", "-w", "%{size_download} bytes in %{time_total} s").must(t)
	report(t, "[40] 150 ms, 2 % loss, apiserver: 1 MB", sum)
	session.stop()
	session.unbroken(t)
}

// TestLossDoesNotMoveThePath stays on its path although 2 % are lost each way.
func TestLossDoesNotMoveThePath(t *testing.T) {
	calm(t)
	lab("wire", "laptop", "--delay", "75ms", "--loss", "2%").must(t)
	alice.connect(t, "-n", "shop")
	paths := alice.start(t, "watch")
	paths.waitPath(t, "udp", time.Now(), 15*time.Second)
	time.Sleep(5 * time.Second) // by then each path knows its round trip
	from := time.Now()
	took := lasting(15*time.Second, 3*time.Minute)
	time.Sleep(took)
	moves := 0
	for _, s := range paths.stop() {
		if s.What == onPath && s.At.After(from) {
			moves++
		}
	}
	report(t, fmt.Sprintf("2 %% loss for %v: path moves (0)", took), moves)
	if moves > 0 {
		t.Errorf("the path moved %d times", moves)
	}
}

// TestLossesHoldALoadBack has transfers go both ways by a path that loses one datagram
// of two hundred: podnet tries what the stream moves, and is back at UDP in the end.
func TestLossesHoldALoadBack(t *testing.T) {
	calm(t)
	db := podAddress(t, "app=db")
	serve(t, netns(t, db))
	lab("wire", "laptop", "--delay", "10ms", "--loss", "0.5%").must(t)
	alice.connect(t, "-n", "shop")
	paths := alice.start(t, "watch")
	paths.waitPath(t, "udp", time.Now(), 15*time.Second)
	time.Sleep(5 * time.Second) // by then each path knows its round trip
	session := alice.start(t, "echo", db+":5432")
	load, from := alice.start(t, "bulk", db, "-C", "cubic"), time.Now() // see speeds
	tried := paths.waitPath(t, "apiserver", from, time.Minute)
	time.Sleep(lasting(15*time.Second, 2*time.Minute))
	kept := alice.connection(t).Path.Kind == "apiserver"
	load.stop()
	ended := time.Now()
	paths.waitPath(t, "udp", ended, 30*time.Second)
	session.stop()
	session.unbroken(t)
	load.unbroken(t)
	report(t, "20 ms, 0.5 % loss: the stream is tried", fmt.Sprintf("after %.1f s of load, and kept: %v; iperf3 %s", tried.Seconds(), kept, text(load)))
}

// TestNamesBehindADownload asks for names while a download fills the line. Of the
// seventy names of the short form the slowest one decides: it looks again when that
// took too long.
func TestNamesBehindADownload(t *testing.T) {
	calm(t)
	lab("wire", "laptop", "--delay", "10ms", "--rate", "50mbit").must(t)
	for _, path := range []string{"apiserver", "udp"} {
		alice.connect(t, "-n", "shop", "--path", path)
		look := func() sighting {
			names := alice.start(t, "lookups", "shop.svc.cluster.local")
			time.Sleep(lasting(4*time.Second, 30*time.Second))
			names.stop()
			s, _ := names.last(done)
			return s
		}
		idle := look()
		load := alice.start(t, "download", "http://web.shop/blob?size=10G")
		time.Sleep(time.Second)
		busy, most := look(), idle.For+300*time.Millisecond
		if !long && busy.For > most {
			report(t, "DNS behind a download, at the first look, "+path, busy.Text)
			busy = look()
		}
		load.stop()
		report(t, "DNS on a quiet line of 50 Mbit/s and 20 ms, "+path, idle.Text)
		report(t, "DNS behind a download on it, "+path, busy.Text+"; "+text(load))
		if !strings.Contains(busy.Text, ", 0 failed") {
			t.Errorf("%s: names were not found behind a download: %q", path, busy.Text)
		}
		if busy.For > most {
			t.Errorf("%s: behind a download 99 %% of the names took up to %v, %v without", path, busy.For, idle.For)
		}
		alice.podnet("disconnect").must(t)
	}
}
