package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// flow is a connection to a laptop on behalf of a rule. It ends with the rule.
type flow struct {
	net.Conn
	forget func()
	once   sync.Once
}

// tied is what ends with a rule.
type tied struct {
	rule control.Rule
	end  func()
}

// tie has end called when a rule goes out of force, until forget is called. It is
// false when the rule is not in force.
func (w *worker) tie(rule control.Rule, end func()) (forget func(), ok bool) {
	t := &tied{rule, end}
	w.mu.Lock()
	w.ends[t] = struct{}{}
	w.mu.Unlock()
	forget = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.ends, t)
	}
	if !w.forced.Load().has(rule) { // and cut may have been before us
		forget()
		return nil, false
	}
	return forget, true
}

// stream is what connections of TCP can do besides: end in one direction, and
// end by a reset.
type stream interface {
	CloseWrite() error
	Reset()
}

// streamFlow is a flow of TCP.
type streamFlow struct {
	*flow
	stream stream
}

// CloseWrite says that no more comes.
func (f *streamFlow) CloseWrite() error { return f.stream.CloseWrite() }

// SetLinger with 0 resets the connection at once, so that the Close that follows
// has no more to say. It does nothing with other values.
func (f *streamFlow) SetLinger(seconds int) error {
	if seconds == 0 {
		f.stream.Reset()
	}
	return nil
}

// dialLaptop connects to the laptop of a rule, as long as that is in force.
func (w *worker) dialLaptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	gone := fmt.Errorf("rule %q is not in force any more", r.Name)
	rule, ok := w.forced.Load().rules[r.Name]
	if !ok || !rule.Is(r) {
		return nil, gone
	}
	to := netip.AddrPortFrom(rule.Laptop, rule.RelayPort)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	forget, ok := w.tie(rule, cancel)
	if !ok {
		return nil, gone
	}
	var c net.Conn
	var err error
	if rule.Protocol == steer.UDP {
		c, err = w.wire.stack.DialUDP(to)
	} else {
		c, err = w.wire.dial(ctx, to, dialTime)
	}
	forget()
	if err != nil {
		return nil, err
	}
	if forget, ok = w.tie(rule, func() { c.Close() }); !ok {
		c.Close()
		return nil, gone
	}
	f := &flow{Conn: c, forget: forget}
	if s, ok := c.(stream); ok {
		return &streamFlow{f, s}, nil
	}
	return f, nil
}

// Close ends the flow. Further calls do nothing.
func (f *flow) Close() error {
	f.once.Do(f.forget)
	return f.Conn.Close()
}

// cut ends what is tied to rules that are not in force.
func (w *worker) cut(in *force) {
	var over []*tied
	w.mu.Lock()
	for t := range w.ends {
		if !in.has(t.rule) {
			over = append(over, t)
		}
	}
	w.mu.Unlock()
	for _, t := range over {
		t.end()
	}
}
