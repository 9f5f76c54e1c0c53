// Package probe is the wire form of the small messages by which laptop and
// gateway ask whether a path works: a ping, the pong that answers it, and a
// notice that nobody asked for. Each is authenticated with a key that only the
// two ends can compute, so that nobody else can keep a dead path alive, move a
// session or learn that a gateway is there. docs/protocol.md has the layout.
//
// The package is pure: no sockets, no clock. Who is to be probed when is
// internal/paths' matter.
package probe

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"golang.org/x/crypto/blake2s"

	"podnet.dev/internal/key"
)

const (
	// HeaderSize is the size in bytes of the smallest message.
	HeaderSize = 64
	// MaxSize is the size in bytes of the largest: what a path of 1500 bytes
	// takes over IPv6, IPv4 being roomier (1500 - 40 - 8).
	MaxSize = 1452
)

// Kind says what a message wants.
type Kind byte

const (
	// Ping wants a Pong of the same size and TxID, by the path it came.
	Ping Kind = 'i'
	// Pong proves that a Ping arrived, and that its size fits both ways.
	Pong Kind = 'o'
	// Notice tells and wants no answer.
	Notice Kind = 'n'
)

// Message is a probe as its reader needs it.
type Message struct {
	Kind Kind
	// FromGateway keeps a message from being played back to its sender.
	FromGateway bool
	// Draining is a gateway's wish to be left for another one.
	Draining bool
	// TxID ties a Pong to its Ping. It means nothing to the other end.
	TxID uint64
	// Limit is the largest datagram in bytes, 0 to 65535, that the sender knows
	// the path to take; 0: not known.
	Limit int
	// Observed is where a Pong's sender saw the Ping come from; the zero
	// AddrPort: not told.
	Observed netip.AddrPort
	// Received and Sent are how many bytes of datagrams, modulo 2^32 and without
	// probes, a Pong's sender has had by this path and has sent by it; both 0: not
	// told.
	Received, Sent uint32
	// Size is that of the whole message in bytes, HeaderSize to MaxSize.
	Size int
}

var (
	// ErrMalformed says that a message is none of ours at all.
	ErrMalformed = errors.New("not a probe")
	// ErrForged says that a message was not made with the key, or was changed.
	ErrForged = errors.New("probe is not authentic")
)

// ID names a Key on the wire. It tells nothing of the key, and strangers who see
// it cannot tell whose it is.
type ID [8]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Key authenticates the probes between one laptop and one gateway, in both
// directions. Two Keys are equal when their IDs are. It prints as its ID.
type Key struct {
	id  ID
	mac [blake2s.Size]byte
}

// The domains keep these hashes of the shared secret apart from each other and
// from WireGuard's.
const (
	domainMAC = "podnet probe v1 mac"
	domainID  = "podnet probe v1 id"
)

// NewKey computes the Key of two ends from either one's point of view. Nothing
// needs to be published for it: whoever may speak WireGuard with the other end
// has it. A public key of low order is an error.
func NewKey(self key.Private, peer key.Public) (Key, error) {
	secret, err := self.Shared(peer)
	if err != nil {
		return Key{}, fmt.Errorf("make probe key: %w", err)
	}
	low, high := self.Public(), peer
	if bytes.Compare(low[:], high[:]) > 0 {
		low, high = high, low
	}
	k := Key{mac: hash(secret, domainMAC, low, high)}
	id := hash(secret, domainID, low, high)
	copy(k.id[:], id[:])
	return k, nil
}

func hash(secret [key.Size]byte, domain string, low, high key.Public) (sum [blake2s.Size]byte) {
	h, err := blake2s.New256(secret[:])
	if err != nil {
		panic(err) // the secret's length is fixed
	}
	h.Write([]byte(domain))
	h.Write(low[:])
	h.Write(high[:])
	h.Sum(sum[:0])
	return sum
}

// ID is the Key's name on the wire.
func (k Key) ID() ID { return k.id }

func (k Key) String() string       { return "probe key " + k.id.String() }
func (k Key) GoString() string     { return k.String() }
func (k Key) LogValue() slog.Value { return slog.StringValue(k.id.String()) }

// The layout, in bytes from the start. What is behind the header is zero, but only the
// MAC has to like it: later versions may use it.
const (
	magic   = 'p' // no WireGuard message begins so
	version = 1

	offKind     = 1
	offVersion  = 2
	offFlags    = 3
	offID       = 4
	offTxID     = 12
	offLimit    = 20
	offPort     = 22
	offAddr     = 24
	offReceived = 40
	offSent     = 44
	offMAC      = 48

	flagGateway  = 1 << 0
	flagDraining = 1 << 1
)

// Append appends m, made with k, to b. A Size out of its range becomes the
// nearest in it.
func (k Key) Append(b []byte, m Message) []byte {
	size := min(max(m.Size, HeaderSize), MaxSize)
	start := len(b)
	b = append(b, make([]byte, size)...)
	p := b[start:]

	p[0], p[offKind], p[offVersion] = magic, byte(m.Kind), version
	if m.FromGateway {
		p[offFlags] |= flagGateway
	}
	if m.Draining {
		p[offFlags] |= flagDraining
	}
	copy(p[offID:], k.id[:])
	binary.BigEndian.PutUint64(p[offTxID:], m.TxID)
	binary.BigEndian.PutUint16(p[offLimit:], uint16(min(max(m.Limit, 0), 0xffff)))
	if a := m.Observed.Addr(); a.IsValid() {
		binary.BigEndian.PutUint16(p[offPort:], m.Observed.Port())
		as16 := a.As16()
		copy(p[offAddr:], as16[:])
	}
	binary.BigEndian.PutUint32(p[offReceived:], m.Received)
	binary.BigEndian.PutUint32(p[offSent:], m.Sent)
	k.sum(p[offMAC:offMAC], p)
	return b
}

// sum appends the MAC of p, a whole message, to b.
func (k Key) sum(b, p []byte) []byte {
	h, err := blake2s.New128(k.mac[:])
	if err != nil {
		panic(err) // the key's length is fixed
	}
	h.Write(p[:offMAC])
	h.Write(p[HeaderSize:])
	return h.Sum(b)
}

// Peek tells cheaply whether b may be a probe, of which kind and by whose key,
// without believing any of it. It allocates nothing.
func Peek(b []byte) (ID, Kind, bool) {
	if len(b) < HeaderSize || len(b) > MaxSize || b[0] != magic || b[offVersion] != version {
		return ID{}, 0, false
	}
	kind := Kind(b[offKind])
	if kind != Ping && kind != Pong && kind != Notice {
		return ID{}, 0, false
	}
	return ID(b[offID:offTxID]), kind, true
}

// Open reads a message made with k. It returns ErrMalformed for what is no
// probe, and ErrForged for what k's owners did not make.
func (k Key) Open(b []byte) (Message, error) {
	id, kind, ok := Peek(b)
	if !ok {
		return Message{}, ErrMalformed
	}
	var mac [blake2s.Size128]byte
	if id != k.id || subtle.ConstantTimeCompare(k.sum(mac[:0], b), b[offMAC:HeaderSize]) != 1 {
		return Message{}, ErrForged
	}
	m := Message{
		Kind:        kind,
		FromGateway: b[offFlags]&flagGateway != 0,
		Draining:    b[offFlags]&flagDraining != 0,
		TxID:        binary.BigEndian.Uint64(b[offTxID:]),
		Limit:       int(binary.BigEndian.Uint16(b[offLimit:])),
		Received:    binary.BigEndian.Uint32(b[offReceived:]),
		Sent:        binary.BigEndian.Uint32(b[offSent:]),
		Size:        len(b),
	}
	if a := netip.AddrFrom16([16]byte(b[offAddr:offReceived])); a != netip.IPv6Unspecified() {
		m.Observed = netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[offPort:]))
	}
	return m, nil
}
