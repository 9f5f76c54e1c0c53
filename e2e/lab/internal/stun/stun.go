// Package stun is the lab's own STUN server and client: as much of RFC 8489 as
// it takes to say under which address somebody is seen. It shares no code with
// podnet, so that the two check each other.
package stun

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Port is STUN's (RFC 8489 section 18.6).
const Port = 3478

// What of RFC 8489 sections 5, 14.2 and 18 is spoken.
const (
	headerSize       = 20
	cookie           = 0x2112a442
	bindingRequest   = 0x0001
	bindingSuccess   = 0x0101
	xorMappedAddress = 0x0020
	family4, family6 = 1, 2
)

// Answer is the answer to a binding request that came from an address; false
// when it is none.
func Answer(request []byte, from netip.AddrPort) ([]byte, bool) {
	if len(request) < headerSize || binary.BigEndian.Uint16(request) != bindingRequest ||
		int(binary.BigEndian.Uint16(request[2:])) != len(request)-headerSize ||
		binary.BigEndian.Uint32(request[4:]) != cookie {
		return nil, false
	}
	family, ip := byte(family4), from.Addr().Unmap().AsSlice()
	if len(ip) == 16 {
		family = family6
	}
	mask(ip, request[4:headerSize])
	b := make([]byte, 0, headerSize+8+len(ip))
	b = binary.BigEndian.AppendUint16(b, bindingSuccess)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(ip)))
	b = append(b, request[4:headerSize]...)
	b = binary.BigEndian.AppendUint16(b, xorMappedAddress)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(ip)))
	b = append(b, 0, family)
	b = binary.BigEndian.AppendUint16(b, from.Port()^cookie>>16)
	return append(b, ip...), true
}

// mapped reads what Answer made for the transaction of a request.
func mapped(answer, request []byte) (netip.AddrPort, error) {
	if len(answer) < headerSize || binary.BigEndian.Uint16(answer) != bindingSuccess ||
		string(answer[4:headerSize]) != string(request[4:headerSize]) {
		return netip.AddrPort{}, errors.New("not the answer to this request")
	}
	for b := answer[headerSize:]; len(b) >= 4; {
		kind, size := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if b = b[4:]; size > len(b) {
			break
		}
		if kind == xorMappedAddress && (size == 8 || size == 20) {
			ip := append([]byte(nil), b[4:size]...)
			mask(ip, request[4:headerSize])
			addr, _ := netip.AddrFromSlice(ip)
			return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:])^cookie>>16), nil
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return netip.AddrPort{}, errors.New("the answer has no address")
}

func mask(ip, with []byte) {
	for i := range ip {
		ip[i] ^= with[i]
	}
}

// Serve answers on the sockets until ctx ends, and closes them.
func Serve(ctx context.Context, sockets ...*net.UDPConn) error {
	failed := make(chan error, len(sockets))
	for _, s := range sockets {
		defer context.AfterFunc(ctx, func() { _ = s.Close() })()
		go func() { failed <- serve(s) }()
	}
	var err error
	for range sockets {
		if e := <-failed; ctx.Err() == nil {
			err = errors.Join(err, e)
		}
	}
	return err
}

func serve(s *net.UDPConn) error {
	defer s.Close()
	buf := make([]byte, 1500)
	for {
		n, from, err := s.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		if answer, ok := Answer(buf[:n], from); ok {
			_, _ = s.WriteToUDPAddrPort(answer, from) // lost is lost
		}
	}
}

// Ask asks a server how it sees the socket, three times 300 ms long at most.
func Ask(s *net.UDPConn, server netip.AddrPort) (netip.AddrPort, error) {
	request := make([]byte, headerSize)
	binary.BigEndian.PutUint16(request, bindingRequest)
	binary.BigEndian.PutUint32(request[4:], cookie)
	_, _ = rand.Read(request[8:])
	buf := make([]byte, 1500)
	err := errors.New("not sent")
	for range 3 {
		if _, err = s.WriteToUDPAddrPort(request, server); err != nil {
			break
		}
		if err = s.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			break
		}
		var n int
		for err == nil {
			if n, _, err = s.ReadFromUDPAddrPort(buf); err == nil {
				if seen, e := mapped(buf[:n], request); e == nil {
					return seen, nil
				}
			}
		}
	}
	return netip.AddrPort{}, fmt.Errorf("ask STUN server %s: %w", server, err)
}
