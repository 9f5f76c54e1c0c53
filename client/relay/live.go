package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/wake"
)

// maxText is how many bytes of a text are kept that an agent says: one of ours says
// no more, but it is in a pod, and a line of another's may have a MiB.
const maxText = 1024

// acceptLive takes an agent's live connection.
func (r *Relay) acceptLive(ctx context.Context, q *netstack.TCPRequest) {
	conn, err := q.Accept(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	f := &flow{proto: packet.TCP, src: q.Src, dst: q.Dst, end: conn.Interrupt}
	if !r.flows.add(f, r.table.Load) {
		return
	}
	defer r.flows.remove(f)
	r.serveLive(conn, q.Src.Addr())
}

// serveLive talks with an agent until one side is silent, and closes conn. What
// an agent says on a connection that a newer one has replaced counts for nothing.
func (r *Relay) serveLive(conn net.Conn, agent netip.Addr) {
	var beats sync.WaitGroup
	defer beats.Wait()
	stop, heard := make(chan struct{}), make(chan struct{}, 1)
	defer conn.Close()
	defer close(stop)
	beats.Go(func() {
		if beat(conn, heard, stop) != nil {
			conn.Close() // the agent hears nothing from us any more
		}
	})
	lines := control.NewReader(conn)
	for first := true; ; first = false {
		var line control.FromPod
		_ = conn.SetReadDeadline(time.Now().Add(control.Silence))
		err := lines.Read(&line)
		if err == nil && first {
			err = r.greet(agent, &line)
			if err != nil {
				if r.state.refuse(agent, err.Error()) {
					r.log.Warn("agent sent away", "addr", agent, "err", err)
				}
				return
			}
			r.log.Info("agent connected", "addr", agent)
		}
		if err != nil {
			if r.state.disconnect(agent, conn) {
				r.log.Info("agent gone", "addr", agent, "err", err)
			}
			return
		}
		wake.Up(heard)
		r.hear(conn, agent, &line, first)
	}
}

// beat writes lines until stop: one at once, one for each that is heard, and one when
// none is for control.Alone.
func beat(w net.Conn, heard, stop <-chan struct{}) error {
	alone := time.NewTimer(control.Alone)
	defer alone.Stop()
	for line := (control.ToPod{Podnet: control.Version}); ; line = (control.ToPod{}) {
		_ = w.SetWriteDeadline(time.Now().Add(control.Silence))
		if err := control.Write(w, line); err != nil {
			return err
		}
		alone.Reset(control.Alone)
		said := time.Now()
	wait:
		for {
			select {
			case <-stop:
				return nil
			case <-alone.C:
				break wait
			case <-heard:
				if time.Since(said) >= control.Hasty {
					break wait
				}
			}
		}
	}
}

// greet judges an agent's first line.
func (r *Relay) greet(agent netip.Addr, line *control.FromPod) error {
	if line.Podnet != control.Version {
		return fmt.Errorf("the agent speaks %q, this machine %q", text(line.Podnet), control.Version)
	}
	if uid := r.table.Load().podUID(agent); uid != "" && uid != line.PodUID {
		return fmt.Errorf("the agent says that it is in pod %q, its rule is for %q", text(line.PodUID), uid)
	}
	return nil
}

// hear notes what an agent said on conn.
func (r *Relay) hear(conn net.Conn, agent netip.Addr, line *control.FromPod, first bool) {
	t := r.table.Load()
	now := time.Now()
	current := r.state.agent(agent, func(a *agentState) bool {
		if first {
			*a = agentState{conn: conn, since: now, counts: map[string]control.Counts{}}
		} else if a.conn != conn {
			return false
		}
		a.lastBeat = now
		if line.Rules != nil {
			a.inForce = *line.Rules
		}
		for name, c := range line.Counts {
			if rule, _ := t.byObject(agent, name); rule != nil {
				a.counts[name] = c
			}
		}
		if line.Lost != 0 {
			a.lost = line.Lost
		}
		return true
	})
	if !current {
		return
	}
	if first || line.Rules != nil || len(line.Counts) > 0 || line.Lost != 0 {
		r.state.announce()
	}
	if line.Event == nil {
		return
	}
	if rule, pod := t.byObject(agent, line.Event.Rule); rule != nil {
		r.state.event(rule, pod, line.Event)
	}
}

// text makes an agent's words fit to be kept, and for a terminal.
func text(s string) string {
	s = strings.ToValidUTF8(strings.Clone(s[:min(len(s), maxText)]), "") // and lets go of its line
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
