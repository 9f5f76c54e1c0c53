// Package key holds WireGuard keys and the tunnel address that follows from
// one. A private key lives in memory only and knows not to print itself.
package key

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"

	"golang.org/x/crypto/blake2s"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Size is the length of a key in bytes.
const Size = wgtypes.KeyLen

// Prefix6 is the IPv6 range of all tunnel addresses; its bytes spell "podnet".
var Prefix6 = netip.MustParsePrefix("fd70:6f64:6e65:7400::/64")

// Private is an X25519 private key. It redacts itself in logs and in fmt.
type Private struct{ k wgtypes.Key }

// RelayPrefix6 is the IPv6 range of all relay addresses, beside Prefix6.
var RelayPrefix6 = netip.MustParsePrefix("fd70:6f64:6e65:7403::/64")

// NewPrivate makes a private key from the system's randomness.
func NewPrivate() (Private, error) {
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return Private{}, fmt.Errorf("make private key: %w", err)
	}
	return Private{k}, nil
}

// ParsePrivate reads the base64 that `wg genkey` prints.
func ParsePrivate(s string) (Private, error) {
	k, err := parse(s)
	return Private{k}, err
}

// Public is the key's public half.
func (k Private) Public() Public { return Public(k.k.PublicKey()) }

// Shared is what X25519 makes of k and p: 32 bytes that only the owners of the
// two keys know. They are to be hashed, never used as they are. A public key of
// low order, with which everybody would know the result, is an error (RFC 7748,
// section 6.1).
func (k Private) Shared(p Public) ([Size]byte, error) {
	// Neither constructor refuses 32 bytes.
	self, _ := ecdh.X25519().NewPrivateKey(k.k[:])
	peer, _ := ecdh.X25519().NewPublicKey(p[:])
	secret, err := self.ECDH(peer)
	if err != nil {
		return [Size]byte{}, fmt.Errorf("share a secret with key %s: %w", p.Short(), err)
	}
	return [Size]byte(secret), nil
}

// Hex is the key as WireGuard's configuration protocol wants it. Only
// internal/tunnel has a use for it.
func (k Private) Hex() string { return hex.EncodeToString(k.k[:]) }

// Base64 is the key as `wg genkey` prints it, for the configuration of a device
// that makes none itself.
func (k Private) Base64() string { return k.k.String() }

func (Private) String() string       { return "(private key)" }
func (Private) GoString() string     { return "(private key)" }
func (Private) LogValue() slog.Value { return slog.StringValue("(private key)") }

// Public is an X25519 public key: a peer's identity.
type Public [Size]byte

// ParsePublic reads the base64 that `wg pubkey` prints.
func ParsePublic(s string) (Public, error) {
	b, err := parse(s)
	return Public(b), err
}

// String is the base64 form.
func (k Public) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Hex is the key as WireGuard's configuration protocol wants it.
func (k Public) Hex() string { return hex.EncodeToString(k[:]) }

// Short is enough of the key to tell peers apart in a log.
func (k Public) Short() string { return k.String()[:8] }

// IsZero reports whether k was never set.
func (k Public) IsZero() bool { return k == Public{} }

func (k Public) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k *Public) UnmarshalText(t []byte) error {
	p, err := ParsePublic(string(t))
	if err == nil {
		*k = p
	}
	return err
}

// LogValue shortens the key.
func (k Public) LogValue() slog.Value { return slog.StringValue(k.Short()) }

// Address6 is the tunnel address of a key: Prefix6 and 64 bits of BLAKE2s of
// the key. Nobody has to allocate it and everybody can compute it.
func (k Public) Address6() netip.Addr { return k.within(Prefix6) }

// RelayAddress6 is the second tunnel address of a laptop's key, at which steered
// traffic arrives: RelayPrefix6 and the same 64 bits.
func (k Public) RelayAddress6() netip.Addr { return k.within(RelayPrefix6) }

func (k Public) within(p netip.Prefix) netip.Addr {
	sum := blake2s.Sum256(k[:])
	a := p.Addr().As16()
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}

// parse is stricter than wgtypes.ParseKey: a key has one spelling, so that two
// Peers cannot have the same key without looking alike.
func parse(s string) (k wgtypes.Key, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != Size {
		return k, fmt.Errorf("parse key: want %d bytes in base64", Size)
	}
	return wgtypes.Key(raw), nil
}
