// Package wgconf reads and writes the INI file that wg(8) and wg-quick(8) read.
// It resolves no names, opens no sockets and never repeats a key in an error.
package wgconf

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"podnet.dev/internal/key"
)

// Config is one file: the [Interface] section and every [Peer].
type Config struct {
	PrivateKey key.Private
	ListenPort uint16         // 0: any
	Addresses  []netip.Prefix // Address=; wg(8) does not know it, wg-quick(8) does
	MTU        int            // bytes; 0: not given
	DNS        []string       // addresses of resolvers, and search domains
	Peers      []Peer
}

// Peer is one [Peer] section. Its fields are those of tunnel.Peer, so that one
// converts to the other.
type Peer struct {
	PublicKey    key.Public
	PresharedKey *[key.Size]byte
	Endpoint     string // host:port, where host may be a name
	AllowedIPs   []netip.Prefix
	Keepalive    time.Duration // 0: off
}

// maxLine bounds one line. wg-quick puts all AllowedIPs of a peer on one line,
// and site lists of a few thousand prefixes are seen in the wild.
const maxLine = 1 << 20

// ignored are the keys of wg-quick that change the host, which is not ours to
// change.
var ignored = map[string]bool{
	"fwmark": true, "table": true, "saveconfig": true,
	"preup": true, "postup": true, "predown": true, "postdown": true,
}

type section int

const (
	none section = iota
	inInterface
	inPeer
)

// parser is the state between two lines.
type parser struct {
	cfg        Config
	in         section
	interfaces int
	hasKey     bool
	peerLine   int // where the open [Peer] began
	seen       map[key.Public]int
}

// Parse reads a configuration. An error names the line. The file must have one
// [Interface] with a PrivateKey, and a PublicKey in every [Peer].
func Parse(r io.Reader) (Config, error) {
	p := parser{seen: map[key.Public]int{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	n := 0
	for sc.Scan() {
		n++
		if err := p.line(n, sc.Text()); err != nil {
			return Config{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return Config{}, fmt.Errorf("line %d: longer than %d bytes", n+1, maxLine)
		}
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	if err := p.endPeer(); err != nil {
		return Config{}, err
	}
	if !p.hasKey {
		return Config{}, errors.New("no PrivateKey in [Interface]")
	}
	return p.cfg, nil
}

func (p *parser) line(n int, s string) error {
	s, _, _ = strings.Cut(s, "#")
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return nil
	case strings.EqualFold(s, "[Interface]"):
		if err := p.endPeer(); err != nil {
			return err
		}
		if p.interfaces++; p.interfaces > 1 {
			return errors.New("a second [Interface]")
		}
		p.in = inInterface
		return nil
	case strings.EqualFold(s, "[Peer]"):
		if err := p.endPeer(); err != nil {
			return err
		}
		p.in, p.peerLine = inPeer, n
		p.cfg.Peers = append(p.cfg.Peers, Peer{})
		return nil
	case s[0] == '[':
		return errors.New("unknown section, want [Interface] or [Peer]")
	}
	name, value, ok := strings.Cut(s, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || !isWord(name) {
		// The line is not repeated: it may be a key without its name.
		return errors.New("want Name = value")
	}
	var err error
	switch p.in {
	case inInterface:
		err = p.interfaceLine(strings.ToLower(name), value)
	case inPeer:
		err = p.peerLineValue(strings.ToLower(name), value)
	default:
		err = errors.New("before any section")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

var errUnknown = errors.New("unknown name")

func (p *parser) interfaceLine(name, value string) (err error) {
	switch name {
	case "privatekey":
		p.cfg.PrivateKey, err = key.ParsePrivate(value)
		p.hasKey = err == nil
	case "listenport":
		p.cfg.ListenPort, err = parseUint16(value)
	case "address":
		p.cfg.Addresses, err = parsePrefixes(p.cfg.Addresses, value, false)
	case "mtu":
		p.cfg.MTU, err = strconv.Atoi(value)
		if err != nil || p.cfg.MTU < 576 || p.cfg.MTU > 65535 {
			err = errors.New("want 576 to 65535 bytes")
		}
	case "dns":
		for word := range strings.SplitSeq(value, ",") {
			if word = strings.TrimSpace(word); word != "" {
				p.cfg.DNS = append(p.cfg.DNS, word)
			}
		}
	default:
		if !ignored[name] {
			err = errUnknown
		}
	}
	return err
}

func (p *parser) peerLineValue(name, value string) (err error) {
	peer := &p.cfg.Peers[len(p.cfg.Peers)-1]
	switch name {
	case "publickey":
		peer.PublicKey, err = key.ParsePublic(value)
	case "presharedkey":
		peer.PresharedKey, err = parsePreshared(value)
	case "allowedips":
		peer.AllowedIPs, err = parsePrefixes(peer.AllowedIPs, value, true)
	case "endpoint":
		peer.Endpoint, err = value, checkEndpoint(value)
	case "persistentkeepalive":
		peer.Keepalive, err = parseKeepalive(value)
	default:
		err = errUnknown
	}
	return err
}

// endPeer checks the [Peer] that the next section or the end of the file
// closes.
func (p *parser) endPeer() error {
	if p.in != inPeer {
		return nil
	}
	peer := p.cfg.Peers[len(p.cfg.Peers)-1]
	if peer.PublicKey.IsZero() {
		return fmt.Errorf("the [Peer] of line %d has no PublicKey", p.peerLine)
	}
	if before, ok := p.seen[peer.PublicKey]; ok {
		return fmt.Errorf("the [Peer] of line %d has the PublicKey of the one of line %d", p.peerLine, before)
	}
	p.seen[peer.PublicKey] = p.peerLine
	p.in = none
	return nil
}

// isWord tells a name such as PublicKey from a stray secret.
func isWord(s string) bool {
	if s == "" || len(s) > 24 {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func parseUint16(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, errors.New("want 0 to 65535")
	}
	return uint16(n), nil
}

// parsePrefixes appends a comma-separated list to have. A bare address is a
// single host. masked clears the host bits, as WireGuard does for allowed IPs.
func parsePrefixes(have []netip.Prefix, list string, masked bool) ([]netip.Prefix, error) {
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			if strings.TrimSpace(list) == "" {
				return have, nil // "AllowedIPs =" is an empty list
			}
			return nil, errors.New("an empty entry in the list")
		}
		pre, err := parsePrefix(s)
		if err != nil {
			return nil, err
		}
		if masked {
			pre = pre.Masked()
		}
		have = append(have, pre)
	}
	return have, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	pre, err := netip.ParsePrefix(s)
	if err != nil || pre.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is no prefix", s)
	}
	return pre, nil
}

func parsePreshared(s string) (*[key.Size]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != key.Size {
		return nil, fmt.Errorf("want %d bytes in base64", key.Size)
	}
	return (*[key.Size]byte)(raw), nil
}

func checkEndpoint(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(s, " \t\x00") {
		return fmt.Errorf("%q is not host:port", s)
	}
	if n, err := parseUint16(port); err != nil || n == 0 {
		return fmt.Errorf("%q has no port from 1 to 65535", s)
	}
	return nil
}

func parseKeepalive(s string) (time.Duration, error) {
	if strings.EqualFold(s, "off") {
		return 0, nil
	}
	n, err := parseUint16(s)
	if err != nil {
		return 0, errors.New("want off or 0 to 65535 seconds")
	}
	return time.Duration(n) * time.Second, nil
}
