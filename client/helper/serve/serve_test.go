//go:build linux || darwin

package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/remote"
	"podnet.dev/client/helper/serve"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/osdns"
	"podnet.dev/internal/key"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serving runs a server for the time of a test.
func serving(t *testing.T) (h *host, socket string, stop func()) {
	t.Helper()
	h, socket = new(host), filepath.Join(t.TempDir(), "s")
	l, err := serve.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	me := serve.Operators{}
	me.Operators.Users = []string{fmt.Sprint(os.Geteuid())}
	s := &serve.Server{Open: h.Open, Networks: h.Networks, Log: slog.New(slog.DiscardHandler), Operators: func() (serve.Operators, error) { return me, nil }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return h, socket, stop
}

// client speaks the wire's own words.
type client struct {
	t *testing.T
	*wire.Conn
}

func dial(t *testing.T, socket string) client {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return client{t, wire.NewConn(c)}
}

func (c client) ask(r wire.Request) (wire.Answer, []*os.File) {
	c.t.Helper()
	if err := c.WriteRequest(r); err != nil {
		c.t.Fatal(err)
	}
	a, files, err := c.ReadAnswer()
	if err != nil {
		c.t.Fatalf("%s: %v", r.Verb, err)
	}
	return a, files
}

func (c client) must(r wire.Request) (wire.Answer, []*os.File) {
	c.t.Helper()
	a, files := c.ask(r)
	if a.Error != nil {
		c.t.Fatalf("%s: %s", r.Verb, a.Error.Message)
	}
	return a, files
}

var (
	own   = netip.MustParseAddr("198.18.0.5")
	ready = []wire.Request{
		{Verb: wire.Hello, Version: wire.Version}, {Verb: wire.Open}, {Verb: wire.TUN, MTU: 1420},
		{Verb: wire.SetNetwork, Network: &wire.Network{Addresses: []netip.Prefix{netip.PrefixFrom(own, 32)}}},
	}
)

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begin := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

// TestASession goes through all that one asks for, and hangs up.
func TestASession(t *testing.T) {
	h, socket, _ := serving(t)
	c := dial(t, socket)
	for _, r := range ready[:2] {
		c.must(r)
	}
	a, files := c.must(ready[2])
	if a.Interface != "podnet0" || len(files) != 1 {
		t.Fatalf("%+v, %d files", a, len(files))
	}
	defer files[0].Close()
	fmt.Fprint(h.packets(), "a packet")
	h.packets().Close()
	if got, err := io.ReadAll(files[0]); err != nil || string(got) != "a packet" {
		t.Errorf("by the file comes %q, %v", got, err)
	}
	c.must(ready[3])
	if a, _ := c.must(wire.Request{Verb: wire.Resolvers}); a.Mode != "direct" || len(a.Resolvers) != 1 {
		t.Errorf("%+v", a)
	}
	a, files = c.must(wire.Request{Verb: wire.ListenDNS, Addresses: []netip.Addr{own}})
	if a.Packets != 1 || a.Streams != 1 || len(files) != 2 {
		t.Fatalf("%+v, %d files", a, len(files))
	}
	for _, f := range files {
		defer f.Close()
	}
	if l, err := net.FileListener(files[1]); err != nil {
		t.Error(err)
	} else {
		if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
			t.Errorf("the socket that was passed does not listen: %v", err)
		} else {
			c.Close()
		}
		l.Close()
	}
	c.must(wire.Request{Verb: wire.SetDNS, DNS: &wire.DNS{Servers: []netip.Addr{own}, MatchDomains: []string{"svc"}}})
	h.warns("somebody writes resolv.conf")
	if a, _, err := c.ReadAnswer(); err != nil || a.Warning == "" {
		t.Errorf("the warning is %+v, %v", a, err)
	}
	if a, _ := c.must(wire.Request{Verb: wire.ResetFlows, Addresses: []netip.Addr{own}}); a.Count != 3 {
		t.Errorf("%+v", a)
	}
	if a, _ := dial(t, socket).must(wire.Request{Verb: wire.Status}); len(a.Sessions) != 1 || a.Sessions[0].Interface != "podnet0" || a.Sessions[0].UID != os.Geteuid() {
		t.Errorf("sessions %+v", a.Sessions)
	}
	want := []string{"tun 1420", "network {podnet0 [198.18.0.5/32] [] [] [] 0}", "listen [198.18.0.5]", "dns {podnet0 [198.18.0.5] [svc] [] false}", "reset [198.18.0.5]"}
	if got := h.notes(); !slices.Equal(got, want) {
		t.Errorf("done %q, want %q", got, want)
	}
	c.Close()
	eventually(t, "the session is taken back", func() bool { return h.sessions() == 0 })
}

// TestADeviceOfTheKernels: the wish comes to the host as it was, the file is the
// wire, and the device's word comes back.
func TestADeviceOfTheKernels(t *testing.T) {
	h, socket, _ := serving(t)
	s, err := remote.Open(t.Context(), socket, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k := s.(helper.Kernel)
	name, w, err := k.WireGuard(1420)
	if err != nil || name != "podnet0" {
		t.Fatalf("%s, %v", name, err)
	}
	defer w.Close()
	if _, err := s.TUN(1420); err == nil {
		t.Error("the session has two interfaces")
	}
	to, err := net.Dial("udp", w.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	fmt.Fprint(to, "a datagram")
	got := make([]byte, 100)
	_ = w.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := w.Read(got); string(got[:n]) != "a datagram" {
		t.Errorf("by the wire comes %q, %v", got[:n], err)
	}
	own, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	want := helper.WireGuard{PrivateKey: own, Peer: key.Public{1}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, Keepalive: 25 * time.Second, Speak: true}
	if err := k.SetWireGuard(want); err != nil {
		t.Fatal(err)
	}
	st, err := k.WireGuardState()
	if err != nil || !st.LastHandshake.Equal(handshake) || st.RxBytes != 7 || st.TxBytes != 9 {
		t.Errorf("%+v, %v", st, err)
	}
	did := []string{"wireguard 1420", fmt.Sprintf("device (private key) of %s to %s [10.96.0.0/12] 25s true", own.Public(), want.Peer), "state"}
	if got := h.notes(); !slices.Equal(got, did) {
		t.Errorf("done %q, want %q", got, did)
	}
}

// TestRefusedChangesNothing: what a session may not wish never comes to the host.
func TestRefusedChangesNothing(t *testing.T) {
	h, socket, _ := serving(t)
	dns := func(server string) wire.Request {
		return wire.Request{Verb: wire.SetDNS, DNS: &wire.DNS{Servers: []netip.Addr{netip.MustParseAddr(server)}, MatchDomains: []string{"svc"}}}
	}
	network := func(address string) wire.Request {
		return wire.Request{Verb: wire.SetNetwork, Network: &wire.Network{Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}}
	}
	for name, c := range map[string]struct {
		after []wire.Request
		r     wire.Request
		says  string
	}{
		"no session":          {nil, ready[2], "no session"},
		"no interface":        {ready[:2], ready[3], "without an interface"},
		"a second interface":  {ready[:3], ready[2], "second interface"},
		"another interface":   {ready[:3], wire.Request{Verb: wire.WireGuard, MTU: 1420}, "second interface"},
		"a device of no key":  {ready[:2], wire.Request{Verb: wire.SetWireGuard, Device: &wire.Device{}}, "without a key"},
		"a second session":    {ready[:2], ready[1], "second session"},
		"the router's own":    {ready[:3], network("192.168.7.1/32"), "collides with 192.168.7.0/24"},
		"loopback":            {ready[:3], network("127.0.0.1/32"), "127.0.0.1"},
		"another's port 53":   {ready, wire.Request{Verb: wire.ListenDNS, Addresses: []netip.Addr{netip.MustParseAddr("192.168.7.2")}}, "not this session's"},
		"another's resolver":  {ready, dns("203.0.113.1"), "not this session's"},
		"another's flows":     {ready, wire.Request{Verb: wire.ResetFlows, Addresses: []netip.Addr{netip.MustParseAddr("192.168.7.2")}}, "not this session's"},
		"a verb of a dream":   {ready, wire.Request{Verb: "run"}, "run"},
		"names for a country": {ready, wire.Request{Verb: wire.SetDNS, DNS: &wire.DNS{Servers: []netip.Addr{own}, MatchDomains: []string{"de"}}}, `"de"`},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, socket)
			for _, r := range c.after {
				_, files := conn.must(r)
				for _, f := range files {
					f.Close()
					h.packets().Close()
				}
			}
			before := h.notes()
			a, files := conn.ask(c.r)
			if a.Error == nil || !strings.Contains(a.Error.Message, c.says) || len(files) > 0 {
				t.Errorf("%+v, %d files", a.Error, len(files))
			}
			if got := h.notes(); !slices.Equal(got, before) {
				t.Errorf("done %q", got[len(before):])
			}
			conn.Close()
			eventually(t, "the session is taken back", func() bool { return h.sessions() == 0 })
		})
	}
}

// TestErrorsKeepTheirKind: who asked for a route that collides has to know.
func TestErrorsKeepTheirKind(t *testing.T) {
	h, socket, _ := serving(t)
	s, err := remote.Open(t.Context(), socket, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h.mu.Lock()
	h.fail = &osdnsError{}
	h.mu.Unlock()
	err = s.SetDNS(t.Context(), osdns.Config{})
	var coded interface {
		error
		Code() string
		Hint() string
	}
	if !errors.As(err, &coded) || coded.Code() != "dns" || coded.Hint() != "try again" || coded.Error() != "no resolver" {
		t.Errorf("%#v", err)
	}
	if _, mode := s.DNS(); mode != "direct" {
		t.Errorf("mode %q", mode)
	}
}

type osdnsError struct{}

func (*osdnsError) Error() string { return "no resolver" }
func (*osdnsError) Code() string  { return "dns" }
func (*osdnsError) Hint() string  { return "try again" }

// TestTheHelperEnds: a session knows, and the host has nothing of it.
func TestTheHelperEnds(t *testing.T) {
	h, socket, stop := serving(t)
	s, err := remote.Open(t.Context(), socket, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if n := h.sessions(); n != 0 {
		t.Errorf("%d sessions", n)
	}
	told := s.(interface{ Err() error })
	eventually(t, "the session has ended", func() bool { return told.Err() != nil })
	if err := s.SetDNS(t.Context(), osdns.Config{}); err == nil || !strings.Contains(err.Error(), "podnet-helper has gone") {
		t.Errorf("a wish at a helper that is no more: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	var none *remote.NoHelperError
	if _, err := remote.Open(t.Context(), socket, nil); !errors.As(err, &none) {
		t.Errorf("a helper that is not there: %v", err)
	}
}

// TestStrangersAreBounded: one user's connections do not keep others out, and
// nonsense ends a connection and no other.
func TestStrangersAreBounded(t *testing.T) {
	h, socket, _ := serving(t)
	c := dial(t, socket)
	c.must(ready[0])
	c.must(ready[1])
	bad := dial(t, socket)
	if _, err := bad.UnixConn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := bad.ReadAnswer(); err == nil {
		t.Error("nonsense is answered")
	}
	var all []client
	for range 16 {
		all = append(all, dial(t, socket))
	}
	last := all[len(all)-1]
	_ = last.WriteRequest(ready[0]) // it may be closed by now
	if _, _, err := last.ReadAnswer(); err == nil {
		t.Error("the 17th connection of a user is answered")
	}
	c.must(wire.Request{Verb: wire.Resolvers})
	if h.sessions() != 1 {
		t.Errorf("%d sessions", h.sessions())
	}
}
