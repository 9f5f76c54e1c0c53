package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/crowd"
	"podnet.dev/e2e/guest"
	"podnet.dev/e2e/town"
)

// The town is outside of the guest. Its API is spoken by HTTP, a method a path, and
// so is what the guest would like to happen out there.

// podName is the one gateway's.
const podName = "podnet-gateway-0"

// outside serves the guest.
type outside struct {
	t     *testing.T
	town  *town.Town
	wire  *crowd.Wire
	api   client.Cluster // by the wire
	began time.Time

	mu   sync.Mutex
	told []told
}

// told is what the guest says of a part of its story.
type told struct {
	Name  string
	Text  string        // what was measured
	Took  time.Duration // what is promised, where something is
	Error string
}

func newOutside(t *testing.T, w *town.Town) (o *outside, env map[string]string) {
	t.Helper()
	o = &outside{t: t, town: w, wire: crowd.NewWire(), began: time.Now()}
	t.Cleanup(func() { _ = o.wire.Close() })
	o.api = crowd.Over(o.wire, w.Cluster())
	calls, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cluster/{method}", o.call)
	mux.HandleFunc("POST /told", o.tell)
	mux.HandleFunc("POST /block", func(_ http.ResponseWriter, r *http.Request) { o.wire.Block(r.URL.Query().Get("on") == "true") })
	mux.HandleFunc("POST /rekey", func(http.ResponseWriter, *http.Request) { o.town.Rekey(podName) })
	mux.HandleFunc("POST /dial", o.dial)
	server := &http.Server{Handler: mux}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(calls) })
	wg.Go(func() { o.serveStreams(ctx, streams, &wg) })
	t.Cleanup(func() {
		cancel()
		_ = server.Close()
		_ = streams.Close()
		wg.Wait()
	})
	port := func(l net.Listener) string { return fmt.Sprint(l.Addr().(*net.TCPAddr).Port) }
	return o, map[string]string{"CALLS": port(calls), "STREAMS": port(streams)}
}

// result is what a method of the cluster's came to.
type result struct {
	Value json.RawMessage
	Error string
	Gone  bool // it is cluster.ErrGone
}

func (o *outside) call(w http.ResponseWriter, r *http.Request) {
	m := reflect.ValueOf(o.api).MethodByName(r.PathValue("method"))
	var args []json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&args); err != nil || !m.IsValid() || len(args) != m.Type().NumIn()-1 {
		http.Error(w, "no such call", http.StatusBadRequest)
		return
	}
	in := []reflect.Value{reflect.ValueOf(r.Context())}
	for i, text := range args {
		v := reflect.New(m.Type().In(i + 1))
		if err := json.Unmarshal(text, v.Interface()); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in = append(in, v.Elem())
	}
	out := m.Call(in)
	var res result
	if err, ok := out[len(out)-1].Interface().(error); ok {
		res.Error, res.Gone = err.Error(), errors.Is(err, cluster.ErrGone)
	}
	if len(out) == 2 {
		text, err := json.Marshal(out[0].Interface())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		// Loopback is elsewhere for the guest.
		res.Value = bytes.ReplaceAll(text, []byte(`"127.0.0.1:`), []byte(`"`+guest.Gateway.String()+":"))
	}
	_ = json.NewEncoder(w).Encode(res)
}

func (o *outside) tell(_ http.ResponseWriter, r *http.Request) {
	var s told
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		o.t.Error(err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, s)
	o.t.Logf("after %.1f s: %s: %s%s", time.Since(o.began).Seconds(), s.Name, s.Text, s.Error)
}

// dialled is what the gateway sends to the laptop, and wants back.
const dialled = 1 << 20

// dial has the gateway connect to the laptop and talk.
func (o *outside) dial(w http.ResponseWriter, r *http.Request) {
	err := func() error {
		to, err := netip.ParseAddrPort(r.URL.Query().Get("to"))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
		defer cancel()
		c, err := o.town.DialLaptop(ctx, podName, to)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		sent := bytes.Repeat([]byte("gate"), dialled/4)
		wrote := make(chan error, 1)
		go func() { _, err := c.Write(sent); wrote <- err }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, sent) {
			return errors.New("what came back is something else")
		}
		return <-wrote
	}()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
}

// serveStreams takes the guest's streams to the gateway, as the API server does.
func (o *outside) serveStreams(ctx context.Context, l net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			to, err := o.api.DialPod(ctx, "podnet-system", podName, 0)
			if err != nil {
				return
			}
			defer context.AfterFunc(ctx, func() { _ = c.Close(); _ = to.Close() })()
			defer to.Close()
			wg.Go(func() { _, _ = io.Copy(to, c); _ = to.Close() })
			_, _ = io.Copy(c, to)
		})
	}
}

// far is the town as the guest's laptop has it.
type far struct{ *away }

// away is what is outside, from within.
type away struct{ calls, streams string }

func (a *away) post(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.calls+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, strings.TrimSpace(string(said)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}

// ask calls a method of the town's; value is for what it returns.
func (f far) ask(ctx context.Context, method string, value any, args ...any) error {
	var res result
	if err := f.post(ctx, "/cluster/"+method, append([]any{}, args...), &res); err != nil {
		return &cluster.UnreachableError{Server: "https://town", Err: err}
	}
	switch {
	case res.Gone:
		return cluster.ErrGone
	case res.Error != "":
		return errors.New(res.Error)
	case value != nil:
		return json.Unmarshal(res.Value, value)
	}
	return nil
}

func (f far) peer(ctx context.Context, method string, args ...any) (*v1alpha1.Peer, error) {
	p := new(v1alpha1.Peer)
	if err := f.ask(ctx, method, p, args...); err != nil {
		return nil, err
	}
	return p, nil
}

var _ client.Cluster = far{}

func (far) Check(context.Context) error { return nil }
func (far) Whoami() cluster.Identity {
	return cluster.Identity{Context: "town", Namespace: "shop", Server: "https://town", User: "alice"}
}
func (far) Remotes() []netip.Addr { return nil }
func (far) Redial()               {}

func (f far) Namespaces(ctx context.Context) (all []string, err error) {
	err = f.ask(ctx, "Namespaces", &all)
	return all, err
}
func (f far) ServicesIn(ctx context.Context, namespace, domain string) (all []localapi.Service, err error) {
	err = f.ask(ctx, "ServicesIn", &all, namespace, domain)
	return all, err
}
func (f far) CreatePeer(ctx context.Context, namespace, name string, spec v1alpha1.PeerSpec) error {
	return f.ask(ctx, "CreatePeer", nil, namespace, name, spec)
}
func (f far) RenewPeer(ctx context.Context, namespace, name string, renew int64) error {
	return f.ask(ctx, "RenewPeer", nil, namespace, name, renew)
}
func (f far) SetCandidates(ctx context.Context, namespace, name string, candidates []string) error {
	return f.ask(ctx, "SetCandidates", nil, namespace, name, candidates)
}
func (f far) SetVirtual(ctx context.Context, namespace, name string, virtual []v1alpha1.VirtualPrefix) (*v1alpha1.Peer, error) {
	return f.peer(ctx, "SetVirtual", namespace, name, virtual)
}
func (f far) DeletePeer(ctx context.Context, namespace, name string) error {
	return f.ask(ctx, "DeletePeer", nil, namespace, name)
}
func (f far) Peer(ctx context.Context, namespace, name string) (*v1alpha1.Peer, error) {
	return f.peer(ctx, "Peer", namespace, name)
}
func (f far) CreateAccess(ctx context.Context, namespace, peer string, scope v1alpha1.AccessScope) error {
	return f.ask(ctx, "CreateAccess", nil, namespace, peer, scope)
}
func (f far) RenewAccess(ctx context.Context, namespace, peer string, scope v1alpha1.AccessScope, renew int64) error {
	return f.ask(ctx, "RenewAccess", nil, namespace, peer, scope, renew)
}
func (f far) DeleteAccess(ctx context.Context, namespace, peer string) error {
	return f.ask(ctx, "DeleteAccess", nil, namespace, peer)
}
func (f far) Await(ctx context.Context, namespace, name string, accesses []string) (*v1alpha1.Peer, error) {
	return f.peer(ctx, "Await", namespace, name, accesses)
}
func (f far) DialPod(ctx context.Context, _, _ string, _ uint16) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", f.streams)
}
