package dnsproxy

import (
	"net/netip"
	"strings"
)

const (
	reverse4 = ".in-addr.arpa."
	reverse6 = ".ip6.arpa."
)

// ParseReverse reads the address out of a canonical PTR name of
// in-addr.arpa or ip6.arpa. ok is false for anything that is not a whole
// address.
func ParseReverse(name string) (addr netip.Addr, ok bool) {
	if s, found := strings.CutSuffix(name, reverse4); found {
		p := ParseReversePrefix(name)
		return p.Addr(), p.IsValid() && p.IsSingleIP() && s != ""
	}
	if s, found := strings.CutSuffix(name, reverse6); found && len(s) == 63 {
		p := ParseReversePrefix(name)
		return p.Addr(), p.IsValid() && p.IsSingleIP()
	}
	return netip.Addr{}, false
}

// ParseReversePrefix reads a canonical name of in-addr.arpa or ip6.arpa, whole
// or not, as the prefix it stands for: "244.10.in-addr.arpa." is
// 10.244.0.0/16. The zero Prefix means that the name is no such thing.
func ParseReversePrefix(name string) netip.Prefix {
	if s, found := strings.CutSuffix(name, reverse4); found {
		return parseReverse4(s)
	}
	if s, found := strings.CutSuffix(name, reverse6); found {
		return parseReverse6(s)
	}
	return netip.Prefix{}
}

func parseReverse4(s string) netip.Prefix {
	var a [4]byte
	n := strings.Count(s, ".") + 1
	if n > len(a) {
		return netip.Prefix{}
	}
	for i := n - 1; i >= 0; i-- {
		label, rest, _ := strings.Cut(s, ".")
		s = rest
		v, ok := parseOctet(label)
		if !ok {
			return netip.Prefix{}
		}
		a[i] = v
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), 8*n)
}

// parseOctet reads 0 to 255 without leading zeros: RFC 1035 section 3.5 has
// one spelling per address.
func parseOctet(s string) (byte, bool) {
	if s == "" || len(s) > 3 || (len(s) > 1 && s[0] == '0') {
		return 0, false
	}
	v := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return byte(v), v <= 255
}

func parseReverse6(s string) netip.Prefix {
	if len(s)%2 == 0 || len(s) > 63 {
		return netip.Prefix{}
	}
	var a [16]byte
	n := (len(s) + 1) / 2
	for i := range n {
		at := len(s) - 1 - 2*i
		if at > 0 && s[at-1] != '.' {
			return netip.Prefix{}
		}
		v, ok := parseNibble(s[at])
		if !ok {
			return netip.Prefix{}
		}
		a[i/2] |= v << (4 * (1 - i%2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), 4*n)
}

func parseNibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
