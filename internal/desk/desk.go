// Package desk is what a laptop says to the gateway of one namespace, which has no
// part in the Kubernetes API, and what that answers: the laptop's Peer, over a
// port-forward to the loopback of the gateway's pod. Who gets that far may
// port-forward to the pod; that is all the identity there is, and so each Call is
// made over a port-forward of its own, which the API server allows or refuses.
//
// A connection carries one Call and one Answer, each a frame: its length in four
// bytes, the highest first, and so many bytes of JSON.
package desk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/internal/key"
)

const (
	// Port is TCP, on the loopback of the gateway's pod.
	Port = 51822
	// MaxFrame is the longest frame in bytes, without its length.
	MaxFrame = 64 << 10
	// Patience is how long a gateway waits for a Call, and a laptop for the
	// Answer once it has sent it.
	Patience = 5 * time.Second
)

// Version is the protocol's. Who hears another one says so, and ends it.
const Version = "desk/v1"

// Verb is what a Call wants.
type Verb string

const (
	// Put makes the Peer, or changes it to be as told: a gateway that has started
	// anew learns of it so. Only a greater renew prolongs the lease.
	Put Verb = "put"
	// Delete ends the Peer. That there is none is no error.
	Delete Verb = "delete"
)

// Call is what a laptop wants.
type Call struct {
	Version string `json:"version"`
	Verb    Verb   `json:"verb"`
	// Name is the Peer's, of the form of an object's.
	Name string `json:"name"`
	// Secret is chosen by whoever makes the Peer, 128 random bits in hexadecimal
	// digits, and asked of whoever changes it.
	Secret string `json:"secret"`
	// Spec is the whole of what is wished; with Put only. The user in it is what
	// the laptop says.
	Spec *v1alpha1.PeerSpec `json:"spec,omitempty"`
}

// Answer is what came of it: the Peer's status after a Put, or an Error.
type Answer struct {
	Version string               `json:"version"`
	Status  *v1alpha1.PeerStatus `json:"status,omitempty"`
	Error   *Error               `json:"error,omitempty"`
}

// Error is why a Call was of no use.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Code is what of an Error a program can act on.
type Code string

const (
	CodeVersion  Code = "version"   // the two sides speak different versions
	CodeInvalid  Code = "invalid"   // the Call makes no sense, or asks for what is not to be had here
	CodeNotYours Code = "not-yours" // the Peer of that name has another secret
	CodeFull     Code = "full"      // the gateway remembers as many Peers as it can
)

// The bounds of a lease in seconds, as the API's own for laptops.
const (
	MinLease = 60
	MaxLease = 900
)

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,98}[a-z0-9])?$`)
	secretForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// Check finds what is wrong with a Call, whoever it is from.
func (c *Call) Check() error {
	bad := func(format string, args ...any) error {
		return &Error{CodeInvalid, fmt.Sprintf(format, args...)}
	}
	switch {
	case c.Version != Version:
		return &Error{CodeVersion, fmt.Sprintf("the gateway speaks %s, the laptop %.20q", Version, c.Version)}
	case !nameForm.MatchString(c.Name):
		return bad("%.40q is no name for a peer", c.Name)
	case !secretForm.MatchString(c.Secret):
		return bad("the secret has another form")
	case c.Verb == Delete:
		return nil
	case c.Verb != Put:
		return bad("the gateway does not know how to %.20q", c.Verb)
	case c.Spec == nil:
		return bad("there is no spec")
	}
	return checkSpec(c.Spec, bad)
}

// checkSpec is the schema of the API's Peer, and that there is nothing beside the
// cluster: nobody could ask whether that is allowed.
func checkSpec(s *v1alpha1.PeerSpec, bad func(string, ...any) error) error {
	_, notKey := key.ParsePublic(s.PublicKey)
	switch {
	case s.User == "" || len(s.User) > 256:
		return bad("the user's name has %d bytes, want 1 to 256", len(s.User))
	case notKey != nil:
		return bad("the public key is no key of WireGuard's")
	case s.LeaseSeconds < MinLease || s.LeaseSeconds > MaxLease:
		return bad("a lease of %d s, want %d to %d", s.LeaseSeconds, MinLease, MaxLease)
	case s.Renew < 1:
		return bad("renew is %d, want 1 at least", s.Renew)
	case len(s.Device) > 63 || len(s.ClientVersion) > 63:
		return bad("the device or the version has more than 63 bytes")
	case len(s.Candidates) > 16 || len(s.Virtual) > 16:
		return bad("more than 16 candidates or virtual prefixes")
	case len(s.AlsoRoutes) > 0 || len(s.AlsoDomains) > 0:
		return bad("there is nothing beside the namespace in namespace mode")
	}
	for _, a := range s.Candidates {
		if len(a) > 64 {
			return bad("a candidate has more than 64 bytes")
		}
	}
	for _, v := range s.Virtual {
		if len(v.Real) > 43 || len(v.Virtual) > 43 {
			return bad("a virtual prefix has more than 43 bytes")
		}
	}
	return nil
}

// ErrTooLong says that a frame is longer than MaxFrame.
var ErrTooLong = errors.New("a frame is longer than 64 KiB")

// Write writes v as one frame.
func Write(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > MaxFrame {
		return ErrTooLong
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// Read reads one frame into v. Fields that v does not know are passed over.
func Read(r io.Reader, v any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > MaxFrame {
		return ErrTooLong
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return json.Unmarshal(body, v)
}
