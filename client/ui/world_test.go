package ui

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/steer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hostile is a name as nobody should have one.
const hostile = `<script>alert("1")</script>`

// fakeDaemon answers the local API from what it holds.
type fakeDaemon struct {
	mu       sync.Mutex
	status   localapi.Status
	services []localapi.Service
	queries  []localapi.DNSQuery
	rules    []localapi.SteerRule
	exposed  []localapi.Exposure
	requests []localapi.SteeredRequest
	seen     []localapi.Inspection
	fail     *localapi.Error
	asked    []string      // methods, paths and bodies of what changes something
	more     chan struct{} // closed when there is more to follow
}

func (f *fakeDaemon) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.more)
	f.more = make(chan struct{})
}

func (f *fakeDaemon) deeds() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// ServeHTTP is the local API.
func (f *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method != http.MethodGet && r.URL.Path != "/v1/contexts" {
		body, _ := io.ReadAll(r.Body)
		f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		if f.fail != nil {
			httpjson.WriteError(w, f.fail)
			return
		}
	}
	switch path := r.URL.Path; {
	case path == "/v1/status":
		httpjson.Write(w, 200, f.status)
	case path == "/v1/contexts":
		httpjson.Write(w, 200, localapi.NewContextList([]localapi.Context{{Name: "lab", Server: "https://10.0.0.1:6443"}, {Name: "staging", Server: "https://203.0.113.9:6443", Namespace: "shop", Current: true}}))
	case path == "/v1/profiles":
		httpjson.Write(w, 200, localapi.NewProfileList([]localapi.Profile{{Name: "everything", Connect: localapi.Words{Context: "blue", AllNamespaces: true}}}))
	case path == "/v1/services":
		httpjson.Write(w, 200, localapi.NewServiceList(f.services))
	case path == "/v1/dns/queries":
		follow(f, w, r, func() []localapi.DNSQuery { return f.queries })
	case strings.HasSuffix(path, "/requests"):
		follow(f, w, r, func() []localapi.SteeredRequest { return f.requests })
	case path == "/v1/events":
		follow(f, w, r, func() []localapi.Event {
			return []localapi.Event{{Seq: 1, Type: localapi.EventPath, Connection: "lab", Time: time.Now(), Text: "path udp 203.0.113.7:31820, " + hostile}}
		})
	case path == "/v1/steer":
		httpjson.Write(w, 200, localapi.NewSteerList(f.rules))
	case strings.HasSuffix(path, "/inspected"):
		httpjson.Write(w, 200, localapi.NewInspections("cart", f.seen))
	case strings.HasSuffix(path, "/replay"):
		i := localapi.Inspection{Time: time.Unix(2000, 0), Exchanges: []localapi.Exchange{{Time: time.Unix(2000, 1)}}}
		httpjson.Write(w, 200, i)
	case path == "/v1/expose":
		httpjson.Write(w, 200, localapi.NewExposeList(f.exposed))
	case path == "/v1/connect":
		lines := httpjson.NewLines(w)
		_ = lines.Send(localapi.Event{Type: localapi.EventReady, Status: &f.status})
	default:
		httpjson.Write(w, 200, struct{}{})
	}
}

// follow answers with lines, and with those that come. The lock is held but while it waits.
func follow[L any](f *fakeDaemon, w http.ResponseWriter, r *http.Request, all func() []L) {
	lines := httpjson.NewLines(w)
	for sent := 0; ; {
		list := all()
		for _, l := range list[min(sent, len(list)):] {
			_ = lines.Send(l)
			sent++
		}
		if r.URL.Path != "/v1/events" && r.URL.Query().Get("follow") != "1" {
			return
		}
		more := f.more
		f.mu.Unlock()
		select {
		case <-more:
			f.mu.Lock()
		case <-r.Context().Done():
			f.mu.Lock()
			return
		}
	}
}

// shop is a session as one has it, with some names that nobody should have.
func shop(now time.Time) *fakeDaemon {
	since := now.Add(-42 * time.Minute)
	expires := now.Add(4 * time.Minute)
	f := &fakeDaemon{status: localapi.NewStatus(), more: make(chan struct{})}
	f.status.State = localapi.Connected
	f.status.Connections = []localapi.Connection{
		{Name: "lab", Context: "lab", Server: "https://10.0.0.1:6443", User: "alice", Namespace: "shop", Namespaces: []string{"shop", "pay"}, Primary: true, Phase: localapi.PhaseReady, Since: &since,
			Gateway: localapi.Gateway{Namespace: "podnet-system", Pod: "podnet-gateway-0", Others: []string{"podnet-gateway-1"}},
			Tunnel:  localapi.Tunnel{Interface: "podnet0", Address: "198.18.0.7", MTU: 1420, LastHandshake: "48s", Rx: 48 << 20, Tx: 3 << 20},
			Path:    localapi.Path{Kind: "udp", Remote: "203.0.113.7:31820", Since: &since, RTTMs: 11.4, Others: []localapi.OtherPath{{Kind: "apiserver", Live: true, RTTMs: 15}}},
			Lease:   localapi.Lease{Seconds: 300, ExpiresAt: &expires}, Routes: []string{"10.96.0.0/12", "10.244.0.0/16"},
			DNS: localapi.DNS{Mode: "systemd-resolved", Zone: "cluster.local", Alias: "lab.podnet.internal", Healthy: true}, Steering: localapi.Tally{Count: 1, Ready: 1}},
		{Name: hostile, Context: "blue", User: "alice", Namespace: "shop", Namespaces: []string{"shop"}, Since: &since, Path: localapi.Path{Kind: "apiserver", RTTMs: 23}},
	}
	f.status.Warnings = []localapi.Warning{{Connection: "lab", Code: "dns-trampled", Severity: "medium", Text: "/etc/resolv.conf was overwritten", Hint: "podnet doctor"}}
	f.services = []localapi.Service{
		{Namespace: "shop", Name: "web", Type: "ClusterIP", ClusterIP: "10.96.0.20", Ports: []localapi.ServicePort{{Name: "http", Protocol: "TCP", Port: 80, URL: "http://web.shop"}}},
		{Namespace: "shop", Name: hostile, Type: "ClusterIP", ClusterIP: "None", Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 5432, URL: "javascript:alert(1)"}}},
	}
	f.queries = []localapi.DNSQuery{
		{Seq: 1, Time: now.Add(-time.Minute), DNSAnswer: localapi.DNSAnswer{Name: "web.shop.", Type: "A", Rcode: "NOERROR", Class: "short", TookMs: 3.1, Answers: []localapi.DNSRecord{{Data: "10.96.0.20"}}, Asked: []localapi.DNSQuestion{{Of: "cluster"}}}},
		{Seq: 2, Time: now, DNSAnswer: localapi.DNSAnswer{Name: hostile + ".example.", Type: "AAAA", Rcode: "NXDOMAIN", Class: "other", TookMs: 20, Asked: []localapi.DNSQuestion{{Of: "base"}}}},
	}
	f.rules = []localapi.SteerRule{{Name: "cart", Namespace: "shop", Owner: "alice", Target: "deploy/web", Port: "8080", Protocol: "tcp", Mode: "steal", Local: "3000", Inspect: true, Since: &since, Ready: 2,
		Pods: []localapi.SteerPod{{Name: "web-1", State: localapi.SteerPodReady}, {Name: "web-2", State: localapi.SteerPodReady}}, Matched: 17, Passed: 802,
		Matches: []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: hostile}}}}}}
	f.requests = []localapi.SteeredRequest{{Time: now, Rule: "cart", Pod: "web-1", By: "laptop", Method: "GET", Target: "/" + hostile, Status: 200, TookMs: 12.3}}
	f.seen = []localapi.Inspection{{Time: time.Unix(1000, 0), Pod: "web-1", Over: true, Exchanges: []localapi.Exchange{
		{Time: time.Unix(1000, 5), In: []byte("POST /cart?id=7 HTTP/1.1\r\nHost: web.shop\r\nX-User: " + hostile + "\r\n\r\ntwo apples"), Out: []byte("HTTP/1.1 200 OK\r\n\r\nfine\n")}}}}
	return f
}

// world is a dashboard before a fakeDaemon.
type world struct {
	t      *testing.T
	daemon *fakeDaemon
	board  *Dashboard
}

func newWorld(t *testing.T, f *fakeDaemon, quiet time.Duration) *world {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "d.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	requests, hangUp := context.WithCancel(context.Background())
	srv := &http.Server{Handler: httpjson.Local(localapi.Host, f), BaseContext: func(net.Listener) context.Context { return requests }}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t, f, New(Config{Client: localapi.NewClient(socket), Quiet: quiet, Log: slog.New(slog.DiscardHandler)})}
	wg.Go(func() { w.board.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		hangUp()
		<-w.board.over
		_ = srv.Close()
		wg.Wait()
	})
	return w
}

func (w *world) invite() string {
	w.t.Helper()
	u, err := w.board.Open(w.t.Context(), localapi.UIRequest{Kube: localapi.Kube{Env: []string{"KUBECONFIG=/k"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return u.URL
}

// visitor is a browser that keeps cookies.
type visitor struct {
	t    *testing.T
	base string
	http *http.Client
}

// enter is a browser that was let in.
func (w *world) enter() *visitor {
	w.t.Helper()
	b, at := w.stranger(), w.invite()
	if code, body := b.do("GET", strings.TrimPrefix(at, b.base), nil, nil); code != 200 {
		w.t.Fatalf("%d: %s", code, body)
	}
	return b
}

// stranger is a browser that was not.
func (w *world) stranger() *visitor {
	jar, _ := cookiejar.New(nil)
	u, _ := url.Parse(w.invite())
	transport := &http.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &visitor{w.t, "http://" + u.Host, &http.Client{Jar: jar, Transport: transport}}
}

// do makes a request; a form makes it a POST as a page's own. edit may change it.
func (b *visitor) do(method, path string, form url.Values, edit func(*http.Request)) (int, string) {
	b.t.Helper()
	r, err := http.NewRequest(method, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", b.base)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if edit != nil {
		edit(r)
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (b *visitor) get(path string) string {
	b.t.Helper()
	code, body := b.do("GET", path, nil, nil)
	if code != 200 {
		b.t.Fatalf("%s: %d: %s", path, code, body)
	}
	return body
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// press presses the button of a form: what it sends, with the page's token.
func (b *visitor) press(page, deed string, form url.Values) (int, string) {
	b.t.Helper()
	m := csrfField.FindStringSubmatch(b.get(page))
	if m == nil {
		b.t.Fatalf("no button on %s", page)
	}
	form.Set("csrf", m[1])
	return b.do("POST", "/do/"+deed, form, nil)
}

func jsonOf(v any) string { b, _ := json.Marshal(v); return string(b) }
