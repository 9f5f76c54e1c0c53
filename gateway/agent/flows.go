package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"podnet.dev/internal/steer"
)

// flow is a connection to a laptop on behalf of a rule. It ends with the rule.
type flow struct {
	net.Conn
	w    *worker
	rule string
	once sync.Once
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

// dialLaptop connects to the laptop of a rule that is in force.
func (w *worker) dialLaptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	gone := fmt.Errorf("rule %q is not in force any more", r.Name)
	rule, ok := w.forced.Load().rules[r.Name]
	if !ok {
		return nil, gone
	}
	to := netip.AddrPortFrom(rule.Laptop, rule.RelayPort)
	var c net.Conn
	var err error
	if rule.Protocol == steer.UDP {
		c, err = w.wire.stack.DialUDP(to)
	} else {
		c, err = w.wire.dial(ctx, to, dialTime)
	}
	if err != nil {
		return nil, err
	}
	f := &flow{Conn: c, w: w, rule: r.Name}
	w.mu.Lock()
	if w.flows[r.Name] == nil {
		w.flows[r.Name] = map[*flow]struct{}{}
	}
	w.flows[r.Name][f] = struct{}{}
	w.mu.Unlock()
	if _, ok := w.forced.Load().rules[r.Name]; !ok { // and cut may have been before us
		f.Close()
		return nil, gone
	}
	if s, ok := c.(stream); ok {
		return &streamFlow{f, s}, nil
	}
	return f, nil
}

// Close ends the flow. Further calls do nothing.
func (f *flow) Close() error {
	f.once.Do(func() {
		f.w.mu.Lock()
		defer f.w.mu.Unlock()
		delete(f.w.flows[f.rule], f)
		if len(f.w.flows[f.rule]) == 0 {
			delete(f.w.flows, f.rule)
		}
	})
	return f.Conn.Close()
}

// cut ends the flows of rules that are not in force.
func (w *worker) cut(in *force) {
	var over []*flow
	w.mu.Lock()
	for rule, flows := range w.flows {
		if _, ok := in.rules[rule]; ok {
			continue
		}
		for f := range flows {
			over = append(over, f)
		}
	}
	w.mu.Unlock()
	for _, f := range over {
		f.Close()
	}
}
