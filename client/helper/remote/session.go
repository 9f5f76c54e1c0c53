//go:build unix

package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
)

const (
	// helloTime is how long the helper may take until it says who it is.
	helloTime = 5 * time.Second
	// answerTime is how long it may take for anything: openresolv may wait 10 s
	// for others of its kind, and is asked up to three times.
	answerTime = 60 * time.Second
)

// session is one connection to the helper.
type session struct {
	conn *wire.Conn
	warn func(string)

	calling sync.Mutex // held from a request to its answer
	answers chan reply
	gone    chan struct{} // closed when the connection has ended
	read    chan struct{} // closed when nobody reads any more

	mu     sync.Mutex
	err    error // why it has
	closed bool
	device *device
	base   []netip.AddrPort
	mode   string
}

type reply struct {
	answer wire.Answer
	files  []*os.File
}

// Look asks the helper on a socket who it is, who it takes us for, and which
// sessions there are.
func Look(ctx context.Context, socket string) (wire.Greeting, []wire.Session, error) {
	s, g, err := dial(ctx, socket, func(string) {})
	if err != nil {
		return g, nil, err
	}
	a, _, err := s.call(wire.Request{Verb: wire.Status})
	return g, a.Sessions, errors.Join(err, s.hangUp())
}

// Open begins a session by the helper on a socket. A *NoHelperError says that there
// is none.
func Open(ctx context.Context, socket string, warn func(string)) (helper.Session, error) {
	s, _, err := dial(ctx, socket, warn)
	if err != nil {
		return nil, err
	}
	if _, _, err := s.call(wire.Request{Verb: wire.Open}); err != nil {
		return nil, errors.Join(err, s.hangUp())
	}
	if err := s.ask(); err != nil {
		return nil, errors.Join(err, s.hangUp())
	}
	return s, nil
}

func dial(ctx context.Context, socket string, warn func(string)) (*session, wire.Greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, wire.Greeting{}, &NoHelperError{err}
	}
	s := &session{conn: wire.NewConn(c.(*net.UnixConn)), warn: warn, answers: make(chan reply, 1), gone: make(chan struct{}), read: make(chan struct{})}
	go s.listen()
	a, _, err := s.callWithin(helloTime, wire.Request{Verb: wire.Hello, Version: wire.Version})
	switch {
	case err != nil:
		return nil, wire.Greeting{}, errors.Join(&NoHelperError{err}, s.hangUp())
	case a.Greeting == nil || a.Greeting.Version != wire.Version:
		return nil, wire.Greeting{}, errors.Join(&Error{wire.Trouble{Code: "privilege", Message: "podnet-helper is of another version than podnet", Hint: "sudo podnet setup brings it up to date"}}, s.hangUp())
	}
	return s, *a.Greeting, nil
}

// listen reads until the connection ends.
func (s *session) listen() {
	defer close(s.read)
	for {
		a, files, err := s.conn.ReadAnswer()
		switch {
		case err != nil:
			s.fail(err)
			return
		case a.Warning != "":
			s.warn(a.Warning)
			continue
		}
		select {
		case s.answers <- reply{a, files}:
		default:
			closeAll(files)
			s.fail(errors.New("an answer to nothing"))
			return
		}
	}
}

// fail notes the end. With it goes the device: its interface is the helper's to
// keep, and packets for it must not wait for one that nobody looks after.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = &goneError{err}
	close(s.gone)
	_ = s.conn.Close()
	if s.device != nil && !s.closed {
		s.device.Break()
	}
}

// Err is why the session has ended without being closed; nil: it has not.
func (s *session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return s.err
}

func (s *session) call(r wire.Request) (wire.Answer, []*os.File, error) {
	return s.callWithin(answerTime, r)
}

// callWithin asks, and waits for the answer, however long its caller wants to:
// what was begun is done or not, and the next wish has to know.
func (s *session) callWithin(limit time.Duration, r wire.Request) (wire.Answer, []*os.File, error) {
	s.calling.Lock()
	defer s.calling.Unlock()
	if err := s.conn.WriteRequest(r); err != nil {
		s.fail(err)
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case got := <-s.answers:
		return got.result()
	case <-late.C:
		s.fail(fmt.Errorf("no answer to %s within %v", r.Verb, limit))
	case <-s.gone:
	}
	select {
	case got := <-s.answers: // the last words of one that ended
		return got.result()
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.Answer{}, nil, s.err
}

func (r reply) result() (wire.Answer, []*os.File, error) {
	if r.answer.Error != nil {
		closeAll(r.files)
		return wire.Answer{}, nil, fault(*r.answer.Error)
	}
	return r.answer, r.files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func (s *session) TUN(mtu int) (tun.Device, error) {
	a, files, err := s.call(wire.Request{Verb: wire.TUN, MTU: mtu})
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	if len(files) != 1 {
		return nil, fmt.Errorf("podnet-helper gave %d files for an interface", len(files))
	}
	dev, err := openDevice(files[0], mtu)
	if err != nil {
		return nil, fmt.Errorf("take interface %s over: %w", a.Interface, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.device = dev
	if s.err != nil {
		return nil, errors.Join(s.err, dev.Close())
	}
	return dev, nil
}

func (s *session) Networks() ([]router.Network, error) {
	have, err := router.Read()
	return have.Networks(router.Ours), err
}

func (s *session) SetNetwork(want router.Config) error {
	_, _, err := s.call(wire.Request{Verb: wire.SetNetwork, Network: &wire.Network{
		Addresses: want.Addresses, Routes: want.Routes, Shared: want.Shared, Avoid: want.Avoid, MTU: want.MTU,
	}})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device != nil {
		s.device.SetMTU(want.MTU)
	}
	return nil
}

func (s *session) ListenDNS(_ context.Context, addrs []netip.Addr) (_ []net.PacketConn, _ []net.Listener, err error) {
	a, files, err := s.call(wire.Request{Verb: wire.ListenDNS, Addresses: addrs})
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(files)
	var open helper.Sockets
	defer func() {
		if err != nil {
			open.Close()
		}
	}()
	if len(files) != a.Packets+a.Streams {
		return nil, nil, fmt.Errorf("podnet-helper gave %d files for %d sockets", len(files), a.Packets+a.Streams)
	}
	for _, f := range files[:a.Packets] {
		p, err := net.FilePacketConn(f)
		if err != nil {
			return nil, nil, fmt.Errorf("answer DNS: %w", err)
		}
		open.Packets = append(open.Packets, p)
	}
	for _, f := range files[a.Packets:] {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, nil, fmt.Errorf("answer DNS: %w", err)
		}
		open.Streams = append(open.Streams, l)
	}
	return open.Packets, open.Streams, nil
}

func (s *session) SetDNS(_ context.Context, want osdns.Config) error {
	r := wire.Request{Verb: wire.SetDNS}
	if !want.IsZero() {
		r.DNS = &wire.DNS{Servers: want.Servers, MatchDomains: granted(want.MatchDomains), SearchDomains: want.SearchDomains, Primary: want.Primary}
	}
	_, _, err := s.call(r)
	return err
}

// granted leaves out the namespaces whose names the helper gives to nobody: "com",
// or "de". Names of theirs resolve with the zone behind, or with "svc".
func granted(domains []string) []string {
	return slices.DeleteFunc(slices.Clone(domains), func(d string) bool {
		return len(d) <= 63 && !slices.Contains([]byte(d), '.') && wire.Domain(d) != nil
	})
}

func (s *session) LookUp(ctx context.Context, name string) []osdns.Way {
	return osdns.LookUp(ctx, osdns.Options{}, name)
}

func (s *session) ResetFlows(_ context.Context, local []netip.Addr) (int, error) {
	a, _, err := s.call(wire.Request{Verb: wire.ResetFlows, Addresses: local})
	return a.Count, err
}

// DNS says what was true last, if the helper does not answer.
func (s *session) DNS() ([]netip.AddrPort, string) {
	_ = s.ask()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.base), s.mode
}

func (s *session) ask() error {
	a, _, err := s.call(wire.Request{Verb: wire.Resolvers})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base, s.mode = a.Resolvers, a.Mode
	return nil
}

// Close has everything taken back. Of a helper that has gone there is nothing to
// ask: its end takes it back.
func (s *session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.read
		return nil
	}
	s.closed = true
	gone := s.err != nil
	s.mu.Unlock()
	var err error
	if !gone {
		_, _, err = s.call(wire.Request{Verb: wire.Close})
	}
	return errors.Join(err, s.hangUp())
}

// hangUp ends the connection, and with it the session if there still is one.
func (s *session) hangUp() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = s.conn.Close() // the helper may have done so before
	<-s.read
	return s.conn.Discard()
}
