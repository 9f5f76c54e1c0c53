//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// bothHTTP is HTTP/1.1 and, with prior knowledge, HTTP/2 without TLS.
func bothHTTP() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// web ADDRESS NAME says hello from NAME until it is told to stop.
func web(ctx context.Context, args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Client", r.RemoteAddr)
		w.Header().Set("X-Forwarded-For-Was", r.Header.Get("X-Forwarded-For"))
		fmt.Fprintf(w, "hello from %s\n", args[1])
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
		fmt.Fprintf(w, "hello from %s\n", args[1])
	})
	s := &http.Server{Handler: mux, Protocols: bothHTTP(), ReadHeaderTimeout: 30 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// customers URL EACH PARALLEL HEADER ANSWER makes EACH requests with the header
// (as "x-user: alice"), whose answers must be "hello from ANSWER", and EACH
// without, whose answers must be somebody else's. Each of PARALLEL customers
// keeps a connection; every second one speaks HTTP/2. A customer's connection is
// made anew after 50 requests, so that all replicas have visitors.
func customersRole(ctx context.Context, args []string) error {
	url, each, parallel, header, answer := args[0], number(args[1]), number(args[2]), args[3], args[4]
	name, value, _ := strings.Cut(header, ": ")
	var mu sync.Mutex
	c := custom{Wrong: map[string]int{}}
	var took []time.Duration
	visit := func(client *http.Client, steered bool) {
		start := time.Now()
		who, err := ask(ctx, client, url, steered, name, value)
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(start))
		switch {
		case err != nil:
			if c.Failed++; c.First == "" {
				c.First = time.Now().Format("15:04:05.000 ") + err.Error()
			}
		case steered != (who == answer):
			c.Wrong[who]++
		case steered:
			c.Laptop++
		default:
			c.App++
		}
	}
	work := make(chan bool)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range parallel {
		wg.Go(func() {
			var client *http.Client
			n := 0
			for steered := range work {
				if n%50 == 0 {
					if client != nil {
						client.CloseIdleConnections()
					}
					client = customer(i%2 == 1)
				}
				n++
				visit(client, steered)
			}
			if client != nil {
				client.CloseIdleConnections()
			}
		})
	}
	for i := 0; i < each && ctx.Err() == nil; i++ {
		if header != "" {
			work <- true
		}
		work <- false
	}
	close(work)
	wg.Wait()
	c.PerSecond = float64(len(took)) / time.Since(start).Seconds()
	slices.Sort(took)
	if len(took) > 0 {
		c.P50, c.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(sighting{At: time.Now(), What: done, Text: string(text)})
}

// customer keeps one connection, of HTTP/1.1 or of HTTP/2.
func customer(h2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{Protocols: p, MaxConnsPerHost: 1}}
}

// ask makes one request and tells who answered.
func ask(ctx context.Context, client *http.Client, url string, steered bool, name, value string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if steered {
		r.Header.Set(name, value)
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	who, ok := strings.CutPrefix(strings.TrimSpace(string(body)), "hello from ")
	if resp.StatusCode != http.StatusOK || !ok {
		return "", fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return who, nil
}
