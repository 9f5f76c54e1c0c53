package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/internal/steer"
)

// What no rule takes passes byte for byte, whatever it is. Many clients on another host
// speak all kinds of protocols at once, in pieces of all sizes, with an app of whose
// every port a rule takes something, and each end of a connection hashes what it sends
// and what it gets.
func TestMixIsExact(t *testing.T) {
	inPod(t, func(t *testing.T) {
		total := 64 << 20
		if os.Getenv("PODNET_E2E_LONG") != "" {
			total = 1 << 30
		}
		seed := uint64(time.Now().UnixNano())
		if s := os.Getenv("PODNET_E2E_SEED"); s != "" {
			var err error
			if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("the same again: PODNET_E2E_SEED=%d", seed)

		far := host(t)
		app := startMixApp(t, seed)
		var rules []steer.Rule
		var ports []PortKey
		for port := range app.serves() {
			r := requests()
			r.Name, r.Port = fmt.Sprintf("ada-%d", port), port
			rules, ports = append(rules, r), append(ports, PortKey{steer.TCP, port})
		}
		set, err := steer.Compile(rules)
		if err != nil {
			t.Fatal(err)
		}
		var taken atomic.Int64
		tick, _ := agentBy(t, Config{
			Rules: set.Port,
			Laptop: func(context.Context, *steer.Rule) (net.Conn, error) {
				taken.Add(1)
				return nil, errNoLaptop
			},
			Observer: func(PortKey) steer.Observer { return blind{} },
			Log:      slog.New(slog.DiscardHandler),
		})
		tick(ports...)

		began, answer, said := time.Now(), make(chan string, 1), ""
		go func() { answer <- far.Say(fmt.Sprintf("mix %d %d 10.99.1.1 fd99:1::1", seed, total)) }()
		for said == "" {
			select {
			case said = <-answer:
			case <-time.After(redirect.RefreshEvery):
				tick(ports...)
			}
		}
		took := time.Since(began)
		var clients mixed
		if err := json.Unmarshal([]byte(said), &clients); err != nil {
			t.Fatalf("%s: %v", said, err)
		}
		for _, err := range clients.Errors {
			t.Error(err)
		}
		if !eventually(func() bool { return app.book.entries() >= clients.Entries }) {
			t.Errorf("the app has %d ends, the clients have %d", app.book.entries(), clients.Entries)
		}
		app.book.mu.Lock()
		defer app.book.mu.Unlock()
		changed := 0
		for pair, n := range clients.Pairs {
			changed += max(0, n-app.book.pairs[pair])
		}
		t.Logf("%v; the app moved %d MB", clients.Spoken, app.book.bytes.Load()>>20)
		t.Logf("MEASURED [47] %d MB of HTTP/1.1, pipelines, HTTP/2, upgrades, TLS and other protocols that no rule takes: "+
			"what arrived other than it was sent  %d of %d (in %.1f s)", clients.Bytes>>20, changed, clients.Entries, took.Seconds())
		if changed > 0 || app.book.count != clients.Entries || clients.Bytes < int64(total) {
			t.Errorf("%d of %d have changed; the app had %d", changed, clients.Entries, app.book.count)
		}
		if n := taken.Load(); n > 0 {
			t.Errorf("a laptop was asked %d times", n)
		}
		if n := app.past.Load(); n > 0 {
			t.Errorf("%d connections went past the agent", n)
		}
		for _, k := range kinds {
			if clients.Spoken[k.name] == 0 {
				t.Errorf("no %s", k.name)
			}
		}
	})
}
