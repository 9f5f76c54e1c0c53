package client

import (
	"fmt"
	"net/http"
	"net/netip"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/addressing"
	"podnet.dev/client/given"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/remap"
)

// Which virtual addresses this machine's programs may use: those that were given out
// here, by the DNS proxy or by OpenAddress (docs/adr/0028).

// booked keeps the host to the addresses that it was given.
func (s *Session) booked(host tun.Device) tun.Device {
	return given.New(host, &s.book, func(to netip.Addr) {
		s.Log.Warn("refused an address that no name has led to", "addr", to)
	})
}

// expect is for before the gateways are asked to map what was chosen.
func (s *Session) expect(c addressing.Choice) {
	if m, err := remap.Parse(c.Pairs); err == nil {
		s.book.Expect(m)
	}
}

// OpenAddress lets programs of this machine use a virtual address that they have not
// by its name.
func (s *Session) OpenAddress(address string) error {
	if !s.ready.Load() {
		return notReady()
	}
	a, err := netip.ParseAddr(address)
	if err == nil && s.book.Open(a.Unmap()) {
		return nil
	}
	return &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("%q is no virtual address of this session", address),
		Hint: "podnet map lists its networks", Status: http.StatusNotFound}
}

// tellRefused fills in what did not pass.
func (s *Session) tellRefused(a *localapi.Addresses) {
	if n, last := s.book.Refused(); n > 0 {
		a.Refused, a.LastRefused = n, last.String()
	}
}
