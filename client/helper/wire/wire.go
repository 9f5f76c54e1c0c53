// Package wire is what podnet and podnet-helper say to each other over a unix
// socket: one JSON object a message behind its length, request and answer in
// turns, and beside an answer the open files that it gives away. A warning may
// come between. It knows which wishes are out of all reason (Check); what the
// host allows beyond that is for whoever carries them out.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"podnet.dev/internal/key"
)

const (
	// Version is that of the messages. A helper of another one is asked nothing.
	Version = 1
	// MaxMessage is the longest message in bytes: a wish with MaxDomains names of
	// namespaces, 63 bytes each (RFC 1123), fits.
	MaxMessage = 512 << 10
	// MaxFiles is how many files may come with one answer.
	MaxFiles = 4 * MaxAddresses
	// headerSize is that of the length before a message, big-endian.
	headerSize = 4
)

// Socket is where podnet-helper answers: PODNET_HELPER_SOCKET, or the usual place.
func Socket() string {
	if path := os.Getenv("PODNET_HELPER_SOCKET"); path != "" {
		return path
	}
	run := "/run"
	if runtime.GOOS == "darwin" {
		run = "/var/run"
	}
	return filepath.Join(run, "podnet", "helper.sock")
}

// Verb is what a request asks for.
type Verb string

const (
	Hello      Verb = "hello"       // Version; answered by anybody's Greeting
	Status     Verb = "status"      // the sessions there are; anybody's
	Open       Verb = "open"        // begins this connection's session
	TUN        Verb = "tun"         // MTU; its interface, and the file
	SetNetwork Verb = "set-network" // Network, the whole wish
	SetDNS     Verb = "set-dns"     // DNS, the whole wish; none undoes it
	ListenDNS  Verb = "listen-dns"  // Addresses; sockets on port 53 of them
	Resolvers  Verb = "resolvers"   // those of the host without podnet, and the mode
	ResetFlows Verb = "reset-flows" // Addresses; how many were ended
	Close      Verb = "close"       // ends the session; answered when all is taken back

	// In TUN's place, where the kernel has WireGuard.
	WireGuard      Verb = "wireguard"       // MTU; its interface, and the file of its wire
	SetWireGuard   Verb = "set-wireguard"   // Device, the whole wish
	WireGuardState Verb = "wireguard-state" // how the device's peer does
)

// Request is a message to the helper.
type Request struct {
	Verb      Verb         `json:"verb"`
	Version   int          `json:"version,omitempty"`
	MTU       int          `json:"mtu,omitempty"` // bytes
	Network   *Network     `json:"network,omitempty"`
	DNS       *DNS         `json:"dns,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Device    *Device      `json:"device,omitempty"`
}

// Network is router.Config of the session's own interface.
type Network struct {
	Addresses []netip.Prefix `json:"addresses"`
	Routes    []netip.Prefix `json:"routes,omitempty"`
	Shared    []netip.Prefix `json:"shared,omitempty"`
	Avoid     []netip.Addr   `json:"avoid,omitempty"`
	MTU       int            `json:"mtu,omitempty"`
}

// DNS is osdns.Config of the session's own interface.
type DNS struct {
	Servers       []netip.Addr `json:"servers"`
	MatchDomains  []string     `json:"matchDomains,omitempty"`
	SearchDomains []string     `json:"searchDomains,omitempty"`
	Primary       bool         `json:"primary,omitempty"`
}

// Device is helper.WireGuard. Nobody logs it.
type Device struct {
	PrivateKey string         `json:"privateKey"` // as wg genkey prints it
	Peer       key.Public     `json:"peer,omitzero"`
	AllowedIPs []netip.Prefix `json:"allowedIPs,omitempty"`
	Keepalive  int            `json:"keepalive,omitempty"` // s
	Speak      bool           `json:"speak,omitempty"`
}

// DeviceState is helper.WireGuardState.
type DeviceState struct {
	LastHandshake time.Time `json:"lastHandshake,omitzero"`
	RxBytes       uint64    `json:"rxBytes"`
	TxBytes       uint64    `json:"txBytes"`
}

// Answer is a message from the helper. One with a Warning answers nothing.
type Answer struct {
	Warning   string           `json:"warning,omitempty"`
	Error     *Trouble         `json:"error,omitempty"`
	Greeting  *Greeting        `json:"greeting,omitempty"`
	Sessions  []Session        `json:"sessions,omitempty"`
	Interface string           `json:"interface,omitempty"`
	Resolvers []netip.AddrPort `json:"resolvers,omitempty"`
	Mode      string           `json:"mode,omitempty"`
	Count     int              `json:"count,omitempty"`
	Device    *DeviceState     `json:"device,omitempty"`
	// Packets and Streams are how many sockets come with it, UDP's first; Files is
	// how many files in all.
	Packets int `json:"packets,omitempty"`
	Streams int `json:"streams,omitempty"`
	Files   int `json:"files,omitempty"`
}

// Greeting says who the helper is, and who it takes the caller for.
type Greeting struct {
	Version  int    `json:"version"`
	Program  string `json:"program"`
	UID      int    `json:"uid"`
	Operator bool   `json:"operator"`
}

// Session is one that the helper has.
type Session struct {
	UID       int    `json:"uid"`
	PID       int    `json:"pid,omitempty"`
	Interface string `json:"interface,omitempty"`
}

// Trouble is an error as it travels; Code and Hint are those of its kind.
type Trouble struct {
	Code     string    `json:"code"`
	Message  string    `json:"message"`
	Hint     string    `json:"hint,omitempty"`
	Conflict *Conflict `json:"conflict,omitempty"`
}

// Conflict is a router.ConflictError.
type Conflict struct {
	Prefix    netip.Prefix `json:"prefix"`
	Interface string       `json:"interface"`
	Network   netip.Prefix `json:"network"`
}

// ParseRequest reads a message that anybody may have sent. Unknown fields are
// errors: a wish that is not understood is not half carried out.
func ParseRequest(b []byte) (r Request, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Request{}, fmt.Errorf("parse request: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Request{}, errors.New("parse request: more than one value")
	}
	return r, nil
}

// ParseAnswer reads a message of the helper's. Unknown fields are a newer one's.
func ParseAnswer(b []byte) (a Answer, err error) {
	if err := json.Unmarshal(b, &a); err != nil {
		return Answer{}, fmt.Errorf("parse answer: %w", err)
	}
	if a.Files < 0 || a.Files > MaxFiles || a.Packets < 0 || a.Streams < 0 || a.Packets+a.Streams > a.Files {
		return Answer{}, fmt.Errorf("parse answer: %d files, %d and %d sockets", a.Files, a.Packets, a.Streams)
	}
	return a, nil
}

// frame puts the length before a message.
func frame(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("a message of %d bytes is too long, at most %d", len(b), MaxMessage)
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, headerSize+len(b)), uint32(len(b))), b...), nil
}

// length reads the length before a message.
func length(header []byte) (int, error) {
	n := binary.BigEndian.Uint32(header)
	if n == 0 || n > MaxMessage {
		return 0, fmt.Errorf("a message of %d bytes: want 1 to %d", n, MaxMessage)
	}
	return int(n), nil
}
