//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"podnet.dev/client/localapi"
)

// talk prints what a role saw. Roles may see two things at once.
var talk = func() func(sighting) {
	var mu sync.Mutex
	lines := json.NewEncoder(os.Stdout)
	return func(s sighting) {
		mu.Lock()
		defer mu.Unlock()
		if s.At.IsZero() {
			s.At = time.Now()
		}
		_ = lines.Encode(s)
	}
}()

const (
	// word is how often an echo session says something.
	word = 100 * time.Millisecond
	// silent is the shortest time without an answer worth telling.
	silent = 400 * time.Millisecond
)

// echo ADDRESS keeps one connection to an echo server, as an open ssh does,
// says a word each 100 ms, and sees how long it had no answer.
func echo(ctx context.Context, args []string) error {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	said := make(chan int, 1)
	go func() {
		tick := time.NewTicker(word)
		defer tick.Stop()
		n := 0
		defer func() { said <- n }()
		for ; ; n++ {
			select {
			case <-ctx.Done():
				// What is under way may still come back.
				_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
				_ = conn.(*net.TCPConn).CloseWrite()
				return
			case <-tick.C:
				if _, err := fmt.Fprintln(conn, n); err != nil {
					return // the reader learns why
				}
			}
		}
	}()
	answers := bufio.NewScanner(conn)
	last, heard := time.Now(), 0
	for ; answers.Scan(); heard++ {
		if answers.Text() != fmt.Sprint(heard) {
			talk(sighting{What: broken, Text: fmt.Sprintf("word %d came back as %q", heard, answers.Text())})
		}
		now := time.Now()
		if gap := now.Sub(last); gap > silent {
			talk(sighting{At: last, What: silence, For: gap})
		}
		if heard == 0 {
			talk(sighting{At: now, What: works})
		}
		last = now
	}
	end := answers.Err()
	if ctx.Err() == nil || end != nil {
		talk(sighting{What: broken, For: time.Since(last), Text: fmt.Sprintf("after %d words: %v", heard, end)})
		return nil
	}
	if n := <-said; n != heard {
		talk(sighting{What: broken, Text: fmt.Sprintf("of %d words %d came back", n, heard)})
	}
	talk(sighting{What: done, Text: fmt.Sprintf("%d words", heard)})
	return nil
}

// fetch URL makes a new connection each 200 ms, which has a second to get its
// answer, and sees when that begins or ceases to work.
func fetch(ctx context.Context, args []string) error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	state, tries, failed := "", 0, 0
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		began := time.Now()
		err := fetchOnce(client, args[0])
		tries++
		now := sighting{At: began, What: fails, Text: fmt.Sprint(err)}
		if err == nil {
			now = sighting{At: time.Now(), What: works}
		} else {
			failed++
		}
		if now.What != state {
			state = now.What
			talk(now)
		}
		select {
		case <-ctx.Done():
			talk(sighting{What: done, Text: fmt.Sprintf("%d connections, %d failed", tries, failed)})
			return nil
		case <-tick.C:
		}
	}
}

func fetchOnce(client *http.Client, url string) error {
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

// lookups DOMAIN asks for a name below the domain that nobody has asked for
// before, each 50 ms, and sees how long the answers take.
func lookups(ctx context.Context, args []string) error {
	var took []time.Duration
	failed := 0
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			if len(took) == 0 {
				return fmt.Errorf("none of %d names was answered", failed)
			}
			slices.Sort(took)
			at := func(share float64) time.Duration {
				return took[min(len(took)-1, int(float64(len(took))*share))].Round(100 * time.Microsecond)
			}
			talk(sighting{What: done, For: at(0.99), Text: fmt.Sprintf("%d names, %d failed, p50 %v, p99 %v, longest %v", len(took), failed, at(0.5), at(0.99), at(1))})
			return nil
		case <-tick.C:
		}
		name := fmt.Sprintf("x%d-%d.%s.", os.Getpid(), i, args[0])
		start := time.Now()
		_, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", name)
		var answer *net.DNSError
		if errors.As(err, &answer) && answer.IsNotFound {
			took = append(took, time.Since(start))
		} else {
			failed++
		}
	}
}

// download URL reads until it is told to stop, and sees how fast that was.
func download(ctx context.Context, args []string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	start := time.Now()
	n, err := io.Copy(io.Discard, r.Body)
	if ctx.Err() == nil {
		talk(sighting{What: broken, Text: fmt.Sprint(err)})
	}
	talk(sighting{What: done, Text: fmt.Sprintf("%.1f Mbit/s", float64(n)*8/1e6/time.Since(start).Seconds())})
	return nil
}

// bulk ADDRESS [FLAGS of iperf3] sends and receives by iperf3 as much as it can, and
// sees when nothing moved one way for a while.
func bulk(ctx context.Context, args []string) error {
	cmd := exec.Command("iperf3", append([]string{"-J", "-i", "0.1", "-t", "3600", "--bidir", "-c"}, args...)...)
	var out strings.Builder
	cmd.Stdout = &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	select {
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGINT)
		<-over
	case <-over:
	}
	var r struct {
		Intervals []struct {
			Sum  iperfSum
			Down iperfSum `json:"sum_bidir_reverse"`
		}
		Error string
	}
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		return fmt.Errorf("iperf3: %w: %.300s", err, out.String())
	}
	if ctx.Err() == nil {
		talk(sighting{What: broken, Text: r.Error})
	}
	var bytes [2]float64
	quiet := [2]time.Time{start, start}
	for _, i := range r.Intervals {
		for way, sum := range []iperfSum{i.Sum, i.Down} {
			from, to := start.Add(seconds(sum.Start)), start.Add(seconds(sum.End))
			bytes[way] += sum.Bytes
			if sum.Bytes == 0 {
				continue
			}
			if gap := from.Sub(quiet[way]); gap > silent {
				talk(sighting{At: quiet[way], What: silence, For: gap, Text: []string{"up", "down"}[way]})
			}
			quiet[way] = to
		}
	}
	if n := len(r.Intervals); n > 0 {
		total := r.Intervals[n-1].Sum.End
		talk(sighting{What: done, Text: fmt.Sprintf("%.0f Mbit/s up, %.0f Mbit/s down for %.0f s", bytes[0]*8/1e6/total, bytes[1]*8/1e6/total, total)})
	}
	return nil
}

type iperfSum struct{ Start, End, Bytes float64 }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// watch asks the daemon each 50 ms and sees every other path and gateway.
func watch(ctx context.Context, _ []string) error {
	daemon := localapi.NewClient(filepath.Join(localapi.RuntimeDir(), localapi.SocketName))
	state := map[string]string{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		now := map[string]string{onPath: "none", onPod: ""}
		at := time.Now()
		s, err := daemon.Status(ctx)
		if ctx.Err() != nil { // asked to end in mid-question: it saw nothing
			talk(sighting{What: done})
			return nil
		}
		if err == nil && len(s.Connections) > 0 {
			c := s.Connections[0]
			if c.Path.Kind != "" {
				now[onPath] = c.Path.Kind + " " + c.Path.Remote
			}
			now[onPod] = c.Gateway.Pod
			now["reason"] = c.Path.Reason
			now["warnings"] = fmt.Sprint(s.Warnings)
		}
		for what, text := range now {
			if text != state[what] {
				state[what] = text
				talk(sighting{At: at, What: what, Text: text})
			}
		}
		select {
		case <-ctx.Done(): // the next look tells
		case <-tick.C:
		}
	}
}
