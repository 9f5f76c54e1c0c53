package desk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"podnet.dev/api/v1alpha1"
)

// call is one that is fine.
func call() Call {
	return Call{Version: Version, Verb: Put, Name: "u1-laptop-beef", Secret: strings.Repeat("0f", 16), Spec: &v1alpha1.PeerSpec{
		User: "alice", PublicKey: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", LeaseSeconds: 300, Renew: 1, Device: "laptop"}}
}

func TestFramesGoThere(t *testing.T) {
	var wire bytes.Buffer
	sent := call()
	if err := Write(&wire, sent); err != nil {
		t.Fatal(err)
	}
	var got Call
	if err := Read(&wire, &got); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(sent)
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) || got.Check() != nil || wire.Len() != 0 {
		t.Errorf("sent %s, got %s (%v), %d bytes left", a, b, got.Check(), wire.Len())
	}
}

func TestBadFrames(t *testing.T) {
	for name, c := range map[string]struct {
		wire string
		want error
	}{
		"nothing":           {"", io.EOF},
		"half a length":     {"\x00\x00", io.ErrUnexpectedEOF},
		"no body":           {"\x00\x00\x00\x05", io.ErrUnexpectedEOF},
		"half a body":       {"\x00\x00\x00\x05{}", io.ErrUnexpectedEOF},
		"one byte too long": {"\x00\x01\x00\x01", ErrTooLong},
		"four gigabytes":    {"\xff\xff\xff\xff", ErrTooLong},
	} {
		var got Call
		if err := Read(strings.NewReader(c.wire), &got); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := Write(io.Discard, strings.Repeat("x", MaxFrame)); !errors.Is(err, ErrTooLong) {
		t.Errorf("a frame that nobody would read was sent: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Call){
		"another version":   func(c *Call) { c.Version = "desk/v2" },
		"no such verb":      func(c *Call) { c.Verb = "list" },
		"no name":           func(c *Call) { c.Name = "" },
		"a path for a name": func(c *Call) { c.Name = "../x" },
		"no secret":         func(c *Call) { c.Secret = "" },
		"a short secret":    func(c *Call) { c.Secret = "0f" },
		"no spec":           func(c *Call) { c.Spec = nil },
		"no user":           func(c *Call) { c.Spec.User = "" },
		"no key":            func(c *Call) { c.Spec.PublicKey = "x" },
		"for ever":          func(c *Call) { c.Spec.LeaseSeconds = 901 },
		"for a moment":      func(c *Call) { c.Spec.LeaseSeconds = 59 },
		"never renewed":     func(c *Call) { c.Spec.Renew = 0 },
		"a novel":           func(c *Call) { c.Spec.Device = strings.Repeat("x", 64) },
		"many candidates":   func(c *Call) { c.Spec.Candidates = make([]string, 17) },
		"a long candidate":  func(c *Call) { c.Spec.Candidates = []string{strings.Repeat("1", 65)} },
		"many prefixes":     func(c *Call) { c.Spec.Virtual = make([]v1alpha1.VirtualPrefix, 17) },
		"a long prefix":     func(c *Call) { c.Spec.Virtual = []v1alpha1.VirtualPrefix{{Real: strings.Repeat("1", 44)}} },
		"a network beside":  func(c *Call) { c.Spec.AlsoRoutes = []string{"10.20.0.0/16"} },
		"a domain beside":   func(c *Call) { c.Spec.AlsoDomains = []string{"corp.internal"} },
	} {
		c := call()
		spoil(&c)
		var why *Error
		if err := c.Check(); !errors.As(err, &why) || why.Message == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := Call{Version: Version, Verb: Delete, Name: "x", Secret: strings.Repeat("0", 32)}
	if err := gone.Check(); err != nil {
		t.Error(err)
	}
}

// FuzzRead reads what anybody may send who may port-forward to a gateway, and what a
// hostile gateway may answer.
func FuzzRead(f *testing.F) {
	frame := func(body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	good, _ := json.Marshal(call())
	f.Add(frame(string(good)))
	f.Add(frame(`{"version":"desk/v1","verb":"delete","name":"x","secret":"00000000000000000000000000000000"}`))
	f.Add(frame(`{"version":"desk/v1","status":{"address4":"198.18.0.2","gateways":[{"pod":"x"}]}}`))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		var c Call
		if err := Read(bytes.NewReader(wire), &c); err == nil && c.Check() == nil {
			if c.Verb == Put && (c.Spec.LeaseSeconds > MaxLease || len(c.Spec.AlsoRoutes) > 0 || len(c.Name) > 100) {
				t.Errorf("passed: %+v", c)
			}
			if err := Write(io.Discard, c); err != nil {
				t.Errorf("read and not written: %v", err)
			}
		}
		var a Answer
		_ = Read(bytes.NewReader(wire), &a)
	})
}
