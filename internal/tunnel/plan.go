package tunnel

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podnet.dev/internal/key"
)

// Peer is one WireGuard peer as its owner wishes it.
type Peer struct {
	PublicKey    key.Public
	PresharedKey *[key.Size]byte // nil: none
	// Endpoint is what the Bind's ParseEndpoint understands: "ip:port" or
	// transport.Gateway.Endpoint(). Empty: the peer speaks first.
	Endpoint   string
	AllowedIPs []netip.Prefix
	Keepalive  time.Duration // whole seconds, at most 65535; 0: off
	// Prompt says that nothing on the way to the peer holds packets back, as in
	// one network by UDP: a slow peer is alone beside those that are prompt.
	Prompt bool
}

// satisfies reports whether a device that was told have needs no word to be as
// want says. An endpoint that is no longer wished stays: the peer may have
// roamed, and what roaming found is better than nothing.
func (have Peer) satisfies(want Peer) bool {
	return (want.Endpoint == "" || have.Endpoint == want.Endpoint) && have.Keepalive == want.Keepalive &&
		samePreshared(have.PresharedKey, want.PresharedKey) && slices.Equal(have.AllowedIPs, want.AllowedIPs)
}

func samePreshared(a, b *[key.Size]byte) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// peerSet is peers by key, each with sorted and masked allowed IPs.
type peerSet map[key.Public]Peer

// newPeerSet checks a wish. Everything that wireguard-go would refuse in the
// middle of applying it is refused here, before anything has changed.
func newPeerSet(self key.Public, want []Peer) (peerSet, error) {
	set := make(peerSet, len(want))
	owner := make(map[netip.Prefix]key.Public, len(want))
	for _, p := range want {
		switch {
		case p.PublicKey.IsZero():
			return nil, errors.New("set peers: a peer without a public key")
		case p.PublicKey == self:
			return nil, fmt.Errorf("set peers: peer %s is this tunnel itself", p.PublicKey.Short())
		case p.Keepalive < 0 || p.Keepalive > 65535*time.Second:
			return nil, fmt.Errorf("set peers: keepalive of peer %s is %v, want 0 to 65535 s", p.PublicKey.Short(), p.Keepalive)
		case strings.ContainsAny(p.Endpoint, "\r\n"):
			return nil, fmt.Errorf("set peers: endpoint of peer %s has a line break", p.PublicKey.Short())
		}
		if _, twice := set[p.PublicKey]; twice {
			return nil, fmt.Errorf("set peers: peer %s appears twice", p.PublicKey.Short())
		}
		ips := make([]netip.Prefix, 0, len(p.AllowedIPs))
		for _, ip := range p.AllowedIPs {
			if !ip.IsValid() || ip.Addr().Is4In6() {
				return nil, fmt.Errorf("set peers: allowed IPs of peer %s: %q is no prefix", p.PublicKey.Short(), ip)
			}
			ip = ip.Masked()
			if other, taken := owner[ip]; taken && other != p.PublicKey {
				return nil, fmt.Errorf("set peers: %s is allowed to both %s and %s", ip, other.Short(), p.PublicKey.Short())
			}
			owner[ip] = p.PublicKey
			ips = append(ips, ip)
		}
		slices.SortFunc(ips, comparePrefix)
		p.AllowedIPs = slices.Compact(ips)
		p.Keepalive = p.Keepalive.Truncate(time.Second)
		set[p.PublicKey] = p
	}
	return set, nil
}

// alone reports whether at most one peer may be slow.
func (s peerSet) alone() bool {
	slow := 0
	for _, p := range s {
		if !p.Prompt {
			slow++
		}
	}
	return slow <= 1
}

// plan is the text of WireGuard's configuration protocol that turns have into
// want, or "" when there is nothing to do. Peers that stay as they are do not
// occur in it, so their sessions go on. Peers leave before others come: an
// address may move from one to the other in one step.
func plan(have, want peerSet) string {
	var b strings.Builder
	for _, k := range sortedKeys(have) {
		if _, stays := want[k]; !stays {
			fmt.Fprintf(&b, "public_key=%s\nremove=true\n", k.Hex())
		}
	}
	for _, k := range sortedKeys(want) {
		if old, known := have[k]; known {
			planChange(&b, old, want[k])
		} else {
			planAdd(&b, want[k])
		}
	}
	return b.String()
}

func planAdd(b *strings.Builder, p Peer) {
	fmt.Fprintf(b, "public_key=%s\n", p.PublicKey.Hex())
	if p.PresharedKey != nil {
		fmt.Fprintf(b, "preshared_key=%s\n", hex.EncodeToString(p.PresharedKey[:]))
	}
	if p.Endpoint != "" {
		fmt.Fprintf(b, "endpoint=%s\n", p.Endpoint)
	}
	for _, ip := range p.AllowedIPs {
		fmt.Fprintf(b, "allowed_ip=%s\n", ip)
	}
	if p.Keepalive != 0 { // last: turning it on starts a handshake
		fmt.Fprintf(b, "persistent_keepalive_interval=%d\n", p.Keepalive/time.Second)
	}
}

func planChange(b *strings.Builder, have, want Peer) {
	if have.satisfies(want) {
		return
	}
	fmt.Fprintf(b, "public_key=%s\nupdate_only=true\n", want.PublicKey.Hex())
	if !samePreshared(have.PresharedKey, want.PresharedKey) {
		var psk [key.Size]byte // all zero: none
		if want.PresharedKey != nil {
			psk = *want.PresharedKey
		}
		fmt.Fprintf(b, "preshared_key=%s\n", hex.EncodeToString(psk[:]))
	}
	if want.Endpoint != "" && want.Endpoint != have.Endpoint {
		fmt.Fprintf(b, "endpoint=%s\n", want.Endpoint)
	}
	// Only the difference: emptying the list first would drop packets of
	// flows that are allowed before and after. A prefix that has moved on to
	// another peer already is not touched by the minus.
	for _, ip := range have.AllowedIPs {
		if _, stays := slices.BinarySearchFunc(want.AllowedIPs, ip, comparePrefix); !stays {
			fmt.Fprintf(b, "allowed_ip=-%s\n", ip)
		}
	}
	for _, ip := range want.AllowedIPs {
		if _, had := slices.BinarySearchFunc(have.AllowedIPs, ip, comparePrefix); !had {
			fmt.Fprintf(b, "allowed_ip=%s\n", ip)
		}
	}
	if have.Keepalive != want.Keepalive {
		fmt.Fprintf(b, "persistent_keepalive_interval=%d\n", want.Keepalive/time.Second)
	}
}

func sortedKeys(s peerSet) []key.Public {
	keys := make([]key.Public, 0, len(s))
	for k := range s {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key.Public) int { return slices.Compare(a[:], b[:]) })
	return keys
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
