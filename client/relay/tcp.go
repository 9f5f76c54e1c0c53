package relay

import (
	"context"
	"time"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/rawtcp"
	"podnet.dev/internal/splice"
)

// serveTCP takes a connection that an agent wants to open.
func (r *Relay) serveTCP(ctx context.Context, q *netstack.TCPRequest) {
	if !r.flows.begin(q.Src.Addr()) {
		q.Drop()
		return
	}
	defer r.flows.done(q.Src.Addr())
	t := r.table.Load()
	if t.live(q.Src.Addr(), q.Dst) {
		r.acceptLive(ctx, q)
		return
	}
	rule := t.rule(packet.TCP, q.Src.Addr(), q.Dst)
	if rule == nil {
		q.Drop()
		return
	}
	began := time.Now()
	socket, err := dialTCP(ctx, rule.Local)
	if err != nil {
		// Refused stays refused: the agent knows what to do then.
		q.Reset()
		if ctx.Err() == nil {
			r.log.Debug("local program not reached", "rule", rule.Name, "err", err)
			r.state.local(rule.Name, err.Error())
			r.over(rule, began, 0, 0, err)
		}
		return
	}
	local := rawtcp.New(socket)
	defer local.Close()
	r.state.local(rule.Name, "")
	conn, err := q.Accept(ctx)
	if err != nil {
		_ = local.SetLinger(0)
		return
	}
	defer conn.Close()
	f := &flow{proto: packet.TCP, src: q.Src, dst: q.Dst, rule: rule.Name, end: func() {
		conn.Interrupt()
		_ = local.SetDeadline(time.Unix(1, 0))
	}}
	if !r.flows.add(f, r.table.Load) {
		conn.Reset()
		_ = local.SetLinger(0)
		return
	}
	defer r.flows.remove(f)
	var in, out func([]byte)
	switch {
	case rule.Inspect:
		i := r.state.inspect(rule.Name, &inspection{pod: rule.Agents[q.Src.Addr()], began: time.Now()}, r.table.Load)
		defer i.end()
		in, out = i.heard, i.said
	case rule.gateways != nil:
		var heard, said int64
		in, out = func(b []byte) { heard += int64(len(b)) }, func(b []byte) { said += int64(len(b)) }
		defer func() { r.over(rule, began, heard, said, nil) }()
	}
	r.log.Debug("steered connection began", "rule", rule.Name, "addr", q.Src)
	err = splice.Join(conn, local, in, out)
	r.log.Debug("steered connection ended", "rule", rule.Name, "addr", q.Src, "err", err)
}

// over notes that what an Exposure took is over, as agents do for other rules. err
// is that the local program was not there.
func (r *Relay) over(rule *Rule, began time.Time, in, out int64, err error) {
	if rule.gateways == nil {
		return
	}
	q := Request{Rule: rule.Name, Began: began, Took: time.Since(began), In: in, Out: out}
	if err != nil {
		q.Error = err.Error()
	}
	r.state.serve(q, err != nil, r.table.Load)
}
