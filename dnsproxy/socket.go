package dnsproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// buffer is the room for one UDP question and its answer. Questions above
// 4096 bytes are cut by the read and fail to unpack: none are honest.
type buffer struct {
	in  [4096]byte
	out [UDPSize * 4]byte // room to pack before truncating
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// packetSocket reads and writes a net.PacketConn; kernel sockets without
// allocating addresses.
type packetSocket struct {
	pc  net.PacketConn
	udp *net.UDPConn // nil: not a kernel socket
}

func newPacketSocket(pc net.PacketConn) packetSocket {
	udp, _ := pc.(*net.UDPConn)
	return packetSocket{pc, udp}
}

func (s packetSocket) read(b []byte) (int, netip.AddrPort, error) {
	if s.udp != nil {
		return s.udp.ReadFromUDPAddrPort(b)
	}
	n, from, err := s.pc.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, addrPort(from), nil
}

func (s packetSocket) write(b []byte, to netip.AddrPort) error {
	if s.udp != nil {
		_, err := s.udp.WriteToUDPAddrPort(b, to)
		return err
	}
	_, err := s.pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort()
	case *net.TCPAddr:
		return a.AddrPort()
	case nil:
		return netip.AddrPort{}
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap
}

func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// serveStreams accepts TCP connections, as many as there are slots.
func (s *Server) serveStreams(ctx context.Context, ln net.Listener, slots chan struct{}) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case temporary(err):
			select { // out of files: accepting again at once would only spin
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		default:
			return fmt.Errorf("accept dns connections on %v: %w", ln.Addr(), err)
		}
		client := addrPort(conn.RemoteAddr()).Addr().Unmap()
		if !s.allowed(client) || !s.streams.take(client) {
			s.dropped.Add(1)
			conn.Close()
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			s.streams.give(client)
			s.dropped.Add(1)
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { s.streams.give(client); <-slots }()
			s.serveStream(ctx, conn, client)
		})
	}
}

func temporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// serveStream reads questions until the client ends, idles or misbehaves.
// Answers go out as they are ready (RFC 7766 section 7): a slow one holds up
// nobody.
func (s *Server) serveStream(ctx context.Context, conn net.Conn, client netip.Addr) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()

	var wg sync.WaitGroup
	defer wg.Wait()
	var writing sync.Mutex
	open := make(chan struct{}, perStream)
	for {
		conn.SetReadDeadline(time.Now().Add(streamIdle))
		wire, err := readFrame(conn)
		if err != nil {
			return
		}
		open <- struct{}{}
		if !s.wait(ctx, client) {
			return
		}
		wg.Go(func() {
			defer func() { s.leave(client); <-open }()
			out := s.answer(ctx, wire, client, true, nil)
			if out == nil {
				conn.Close()
				return
			}
			writing.Lock()
			defer writing.Unlock()
			conn.SetWriteDeadline(time.Now().Add(streamWrite))
			if err := writeFrame(conn, out); err != nil {
				conn.Close()
			}
		})
	}
}

// readFrame reads a length of two bytes and as many bytes (RFC 1035 section
// 4.2.2).
func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// writeFrame sends length and message in one write, so in one segment.
func writeFrame(w io.Writer, b []byte) error {
	if len(b) > 0xffff {
		return fmt.Errorf("dns message of %d bytes is too long for a stream", len(b))
	}
	out := make([]byte, 2+len(b))
	binary.BigEndian.PutUint16(out, uint16(len(b)))
	copy(out[2:], b)
	_, err := w.Write(out)
	return err
}
