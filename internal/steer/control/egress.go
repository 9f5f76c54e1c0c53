package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"podnet.dev/internal/steer"
)

// maxOpen is the longest line of Open or Opened in bytes.
const maxOpen = 4 << 10

// Open is the first line of a connection to EgressPort.
type Open struct {
	Protocol steer.Protocol `json:"protocol"`
	To       netip.AddrPort `json:"to"`
	// Rule is the name of the rule by which the flow leaves: it counts the flow.
	Rule string `json:"rule,omitempty"`
}

// Opened is the answer: the zero Opened when the flow is open.
type Opened struct {
	// Error says in a line why it is not, Code what of it a program can act on.
	Error string `json:"error,omitempty"`
	Code  Code   `json:"code,omitempty"`
}

// Code says why a flow was not opened.
type Code string

// The codes; anything else is a failure without a name.
const (
	CodeRefused   Code = "refused"     // by the target
	CodeNoHost    Code = "unreachable" // the target
	CodeNoNetwork Code = "no-network"  // to the target
	CodeTimeout   Code = "timeout"
	CodeForbidden Code = "forbidden" // by the pod's network or by the agent
	CodeFull      Code = "full"      // the agent has too many flows
)

// codes are what errors are called, and what they are again at the other end.
var codes = []struct {
	code Code
	err  error
}{
	{CodeRefused, syscall.ECONNREFUSED}, {CodeNoHost, syscall.EHOSTUNREACH}, {CodeNoNetwork, syscall.ENETUNREACH},
	{CodeTimeout, syscall.ETIMEDOUT}, {CodeForbidden, syscall.EACCES}, {CodeFull, syscall.EMFILE},
	{CodeRefused, syscall.ECONNRESET}, {CodeForbidden, syscall.EPERM}, {CodeNoHost, syscall.EHOSTDOWN},
	{CodeTimeout, os.ErrDeadlineExceeded}, {CodeTimeout, context.DeadlineExceeded},
}

// Outcome is the answer to an attempt that ended with err.
func Outcome(err error) Opened {
	if err == nil {
		return Opened{}
	}
	o := Opened{Error: err.Error()}
	o.Error = o.Error[:min(len(o.Error), 512)]
	for _, c := range codes {
		if errors.Is(err, c.err) {
			o.Code = c.code
			return o
		}
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		o.Code = CodeTimeout
	}
	return o
}

// Err is the error again: errors.Is tells ECONNREFUSED, EHOSTUNREACH, ENETUNREACH,
// ETIMEDOUT, EACCES and EMFILE (the agent is full) apart. It is nil when the flow
// is open.
func (o Opened) Err() error {
	if o == (Opened{}) {
		return nil
	}
	for _, c := range codes {
		if o.Code == c.code {
			return fmt.Errorf("the agent says %q: %w", o.Error, c.err)
		}
	}
	return fmt.Errorf("the agent says %q", o.Error)
}

// ReadOpen reads an Open or an Opened, and not a byte of what follows: that is the
// flow's. Both are short, so that a byte at a time does.
func ReadOpen(r io.Reader, v any) error {
	var line []byte
	for one := make([]byte, 1); ; line = append(line, one[0]) {
		switch _, err := io.ReadFull(r, one); {
		case err == io.EOF && len(line) > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case len(line) == maxOpen:
			return errors.New("the first line of a flow is longer than 4 KiB")
		}
		if one[0] == '\n' {
			break
		}
	}
	if err := json.Unmarshal(bytes.TrimSpace(line), v); err != nil {
		return fmt.Errorf("read a line: %w", err)
	}
	return nil
}
