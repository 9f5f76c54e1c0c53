package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// UDPSize is the largest UDP message we send or ask for, in bytes: it fits
// one unfragmented packet on every path (DNS flag day 2020).
const UDPSize = 1232

const (
	defaultInFlight = 512 // questions at once, all clients together
	defaultStreams  = 256 // TCP connections at once
	streamShare     = 8   // of the TCP connections, one client has one part in this many
	perStream       = 64  // questions at once on one TCP connection
	streamIdle      = 10 * time.Second
	streamWrite     = 5 * time.Second
)

// Options are the server's limits. Zero fields take the defaults.
type Options struct {
	Log *slog.Logger
	// MaxInFlight is how many questions are worked on at once; above it UDP
	// questions are dropped and TCP ones wait. Default 512.
	MaxInFlight int
	// MaxPerClient is the same for one client address, so that one peer's
	// flood leaves room for the others; nor may one client have more than an
	// eighth of MaxStreams then. 0: no such limits.
	MaxPerClient int
	// Allow says who may ask; all others hear nothing. An address of the
	// laptop can be reached from its LAN, whichever link it is on. Nil:
	// everybody. It is called for each question and each TCP connection.
	Allow func(client netip.Addr) bool
	// MaxStreams is how many TCP connections are open at once. Default 256.
	MaxStreams int
}

// Stats counts since the server's start.
type Stats struct {
	Queries, Dropped, Malformed, Panics uint64
	Rcodes                              map[string]uint64
}

// Server is the edge between sockets and a Handler. It is our own and not
// miekg/dns' Server because that one has no limit before the work of
// unpacking, and answers a TCP connection's questions strictly one after
// the other (5 k/s measured), while our own laptops pipeline theirs.
type Server struct {
	handler Handler
	prompt  Prompt // the same, nil if it is none
	opts    Options
	log     *slog.Logger

	slots   chan struct{}
	clients *shares // of the slots
	streams *shares // TCP connections

	queries, dropped, malformed, panics atomic.Uint64
	rcodes                              [24]atomic.Uint64
}

// NewServer makes a server; Serve starts it.
func NewServer(h Handler, opts Options) *Server {
	if opts.MaxInFlight <= 0 {
		opts.MaxInFlight = defaultInFlight
	}
	if opts.MaxStreams <= 0 {
		opts.MaxStreams = defaultStreams
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	prompt, _ := h.(Prompt)
	return &Server{
		handler: h,
		prompt:  prompt,
		opts:    opts,
		log:     opts.Log,
		slots:   make(chan struct{}, opts.MaxInFlight),
		clients: newShares(opts.MaxPerClient),
		streams: newShares(min(opts.MaxPerClient, max(1, opts.MaxStreams/streamShare))),
	}
}

// Serve answers on the given sockets until ctx ends or one of them breaks. It
// owns the sockets: all are closed, and every question is finished, when it
// returns. The end of ctx is no error.
func (s *Server) Serve(ctx context.Context, packets []net.PacketConn, streams []net.Listener) error {
	g, inner := errgroup.WithContext(ctx)
	for _, pc := range packets {
		g.Go(func() error { return s.servePackets(inner, pc) })
	}
	streamSlots := make(chan struct{}, s.opts.MaxStreams)
	for _, ln := range streams {
		g.Go(func() error { return s.serveStreams(inner, ln, streamSlots) })
	}
	g.Go(func() error {
		<-inner.Done()
		for _, pc := range packets {
			pc.Close()
		}
		for _, ln := range streams {
			ln.Close()
		}
		return nil
	})
	err := g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Stats is a snapshot of the counters.
func (s *Server) Stats() Stats {
	st := Stats{
		Queries: s.queries.Load(), Dropped: s.dropped.Load(),
		Malformed: s.malformed.Load(), Panics: s.panics.Load(),
		Rcodes: map[string]uint64{},
	}
	for code := range s.rcodes {
		if n := s.rcodes[code].Load(); n > 0 {
			st.Rcodes[dns.RcodeToString[code]] = n
		}
	}
	return st
}

// answer turns one message from the wire into the wire form of its answer,
// packed into buf if it fits there. Nil: send nothing.
func (s *Server) answer(ctx context.Context, wire []byte, client netip.Addr, stream bool, buf []byte) (out []byte) {
	defer s.rescue(wire, client, &out)
	q, out := s.read(wire)
	if q == nil {
		return out
	}
	return s.finish(q, s.handler.ServeDNS(ctx, &Request{Msg: q, Client: client, Stream: stream}), stream, buf)
}

// answerNow is answer for a datagram that nobody has to be waited for. Where
// somebody has to be, later is the question, which goes to answerLater.
func (s *Server) answerNow(p *plain, wire []byte, client netip.Addr, buf []byte) (out []byte, later *dns.Msg) {
	defer s.rescue(wire, client, &out)
	if r := p.read(wire, client); r != nil {
		s.queries.Add(1)
		m := s.prompt.ServeNow(r)
		if m == nil {
			return nil, r.Msg.Copy()
		}
		if out = p.write(m, buf); out != nil {
			s.rcodes[dns.RcodeSuccess].Add(1)
			return out, nil
		}
		return s.finish(r.Msg, m, false, buf), nil
	}
	q, out := s.read(wire)
	if q == nil {
		return out, nil
	}
	if m := s.prompt.ServeNow(&Request{Msg: q, Client: client}); m != nil {
		return s.finish(q, m, false, buf), nil
	}
	return nil, q
}

func (s *Server) answerLater(ctx context.Context, q *dns.Msg, wire []byte, client netip.Addr, buf []byte) (out []byte) {
	defer s.rescue(wire, client, &out)
	return s.finish(q, s.handler.ServeDNS(ctx, &Request{Msg: q, Client: client}), false, buf)
}

// rescue is for deferring. The message is a stranger's: a bug that it finds in a
// parser costs one answer, not the gateway of everybody.
func (s *Server) rescue(wire []byte, client netip.Addr, out *[]byte) {
	if p := recover(); p != nil {
		s.panics.Add(1)
		s.log.Error("dns question made a handler panic", "peer", client, "err", p, "stack", string(debug.Stack()))
		*out = bare(wire, dns.RcodeServerFailure)
	}
}

// read unpacks a question that a handler may see. Where there is none, out is what
// to send instead, nil for nothing.
func (s *Server) read(wire []byte) (q *dns.Msg, out []byte) {
	s.queries.Add(1)
	switch verdict := inspect(wire); {
	case verdict == drop:
		s.malformed.Add(1)
		return nil, nil
	case verdict != accept:
		s.malformed.Add(1)
		return nil, bare(wire, int(verdict))
	}
	q = new(dns.Msg)
	if err := q.Unpack(wire); err != nil {
		s.malformed.Add(1)
		return nil, bare(wire, dns.RcodeFormatError)
	}
	if resp := refusal(q); resp != nil {
		return nil, s.finish(q, resp, true, nil)
	}
	return q, nil
}

func (s *Server) finish(q, resp *dns.Msg, stream bool, buf []byte) []byte {
	out, rcode := finish(q, resp, stream, buf)
	if rcode >= 0 && rcode < len(s.rcodes) {
		s.rcodes[rcode].Add(1)
	}
	return out
}

// keptWorkers is how many goroutines per UDP socket wait for the next question
// when there is none: those that are new have their stacks grown first, which
// took a sixth of the time.
const keptWorkers = 128

// packet is one UDP question.
type packet struct {
	*buffer
	n    int
	from netip.AddrPort
	q    *dns.Msg // what is in it; nil: nobody has looked
}

// servePackets reads one UDP socket.
func (s *Server) servePackets(ctx context.Context, pc net.PacketConn) error {
	sock := newPacketSocket(pc)
	var wg sync.WaitGroup
	defer wg.Wait()
	next := make(chan packet)
	defer close(next)
	var waiting atomic.Int32
	work := func(p packet) {
		for more := true; more; {
			s.answerPacket(ctx, sock, p)
			if waiting.Add(1) > keptWorkers {
				waiting.Add(-1)
				return
			}
			p, more = <-next
			waiting.Add(-1)
		}
	}
	var easy plain
	for {
		b := buffers.Get().(*buffer)
		n, from, err := sock.read(b.in[:])
		if err != nil {
			buffers.Put(b)
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			if passing(err) {
				continue
			}
			return fmt.Errorf("read dns questions on %v: %w", pc.LocalAddr(), err)
		}
		client := from.Addr().Unmap()
		if !s.allowed(client) {
			s.dropped.Add(1)
			buffers.Put(b)
			continue
		}
		p := packet{buffer: b, n: n, from: from}
		if s.prompt != nil {
			var out []byte
			if out, p.q = s.answerNow(&easy, b.in[:n], client, b.out[:]); p.q == nil {
				s.send(ctx, sock, out, from)
				buffers.Put(b)
				continue
			}
		}
		if !s.enter(client) {
			s.dropped.Add(1)
			buffers.Put(b)
			continue
		}
		select {
		case next <- p:
		default:
			wg.Go(func() { work(p) })
		}
	}
}

func (s *Server) answerPacket(ctx context.Context, sock packetSocket, p packet) {
	client := p.from.Addr().Unmap()
	defer s.leave(client)
	defer buffers.Put(p.buffer)
	var out []byte
	if p.q != nil {
		out = s.answerLater(ctx, p.q, p.in[:p.n], client, p.out[:])
	} else {
		out = s.answer(ctx, p.in[:p.n], client, false, p.out[:])
	}
	s.send(ctx, sock, out, p.from)
}

// send sends an answer, unless it is nil.
func (s *Server) send(ctx context.Context, sock packetSocket, out []byte, to netip.AddrPort) {
	if out == nil {
		return
	}
	if err := sock.write(out, to); err != nil && ctx.Err() == nil {
		s.log.Debug("dns answer not sent", "addr", to, "err", err)
	}
}

func (s *Server) allowed(client netip.Addr) bool { return s.opts.Allow == nil || s.opts.Allow(client) }

func (s *Server) enter(client netip.Addr) bool {
	select {
	case s.slots <- struct{}{}:
	default:
		return false
	}
	if !s.clients.take(client) {
		<-s.slots
		return false
	}
	return true
}

// wait is enter for questions that can be made to wait. It reports false when
// ctx has ended.
func (s *Server) wait(ctx context.Context, client netip.Addr) bool {
	if !s.clients.await(ctx, client) {
		return false
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		s.clients.give(client)
		return false
	}
}

func (s *Server) leave(client netip.Addr) {
	s.clients.give(client)
	<-s.slots
}

// passing says whether a socket works on after this read error: a peer's ICMP
// error arrives at the socket as one.
func passing(err error) bool {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return true
	}
	return isRefused(err)
}
