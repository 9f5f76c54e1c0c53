package gateway

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/presence"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world"
	"podnet.dev/internal/key"
	"podnet.dev/internal/overview"
	"podnet.dev/internal/peercred"
	"podnet.dev/internal/transport"
	"podnet.dev/internal/version"
)

// The desk is where an administrator's question comes in: a socket without a file,
// in the pod's network namespace, that no port-forward and no other pod reaches.
// Whoever may exec into the pod does, by the command top.

// deskAddress is the desk of the gateway whose stream listener has that port.
func deskAddress(streamPort int) string { return "@podnet-gateway-" + strconv.Itoa(streamPort) }

// deskTime is how long an administrator may be silent, and a line take.
const deskTime = 10 * time.Minute

// Top asks the gateway in this pod for an overview and writes it to out, once at
// the beginning and once more for each line of in, until in ends.
func Top(ctx context.Context, in io.Reader, out io.Writer) error {
	return top(ctx, deskAddress(StreamPort), in, out)
}

func top(ctx context.Context, at string, in io.Reader, out io.Writer) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", at)
	if err != nil {
		return fmt.Errorf("ask the gateway of this pod: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	go func() {
		_, _ = io.Copy(c, in)
		_ = c.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(out, c)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serveDesk answers at the desk until ctx ends.
func (g *Gateway) serveDesk(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	defer context.AfterFunc(ctx, func() { _ = g.desk.Close() })()
	for {
		c, err := g.desk.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("serve administrators: %w", err)
		}
		all.Go(func() { g.answerAtDesk(ctx, c) })
	}
}

func (g *Gateway) answerAtDesk(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if who, err := peercred.Of(c); err != nil || who.UID != os.Getuid() {
		g.o.Log.Warn("somebody else asked for an overview", "uid", who.UID, "err", err)
		return
	}
	g.o.Log.Info("an administrator looks at who is connected")
	lines, w := bufio.NewReaderSize(c, 64), json.NewEncoder(c)
	for {
		_ = c.SetDeadline(time.Now().Add(deskTime))
		if w.Encode(g.overview()) != nil {
			return
		}
		if _, err := lines.ReadSlice('\n'); err != nil {
			return
		}
	}
}

// overview is the gateway as an administrator sees it now.
func (g *Gateway) overview() overview.Gateway {
	r := g.memory.Read()
	o := overview.Gateway{
		Pod: g.o.Pod, Version: version.Version, Time: time.Now(), Leader: g.leader.leads.Load(), Frozen: g.guard.Away(),
		PoliciesHold: g.guard.Holds(), MemoryUsed: r.Used, MemoryBudget: r.Budget, Agents: g.admit.steer.Connected(), Peers: []overview.Peer{},
	}
	if shown := g.admit.shown.Load(); shown != nil {
		o.Peers = slices.Clone(*shown)
	}
	peers, err := g.ground.Tunnel.Stats()
	if err != nil {
		return o // the tunnel is closing
	}
	known, open := presence.Of(peers), g.forward.OpenFlows()
	for i := range o.Peers {
		p := &o.Peers[i]
		if t, ok := known[key.Public(p.Key)]; ok {
			if p.Path = string(transport.EndpointKind(t.Endpoint)); p.Path == string(transport.UDP) {
				p.From = t.Endpoint
			}
			if !t.LastHandshake.IsZero() {
				p.LastHandshake = &t.LastHandshake
			}
			p.BytesUp, p.BytesDown = t.RxBytes, t.TxBytes
		}
		for _, text := range p.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				p.Connections += open[a].TCP
				p.Datagrams += open[a].Datagrams
			}
		}
	}
	return o
}

// show keeps what overviews say of the admitted.
func (a *admitter) show(s world.Snapshot, plan enrol.Plan, steered steering.Plan, limits map[string][]string) {
	rules := map[string][]string{}
	for i, r := range s.Rules {
		if name := r.Rule.Namespace + "/" + r.Rule.Rule; steered.Verdicts[i].Accepted && !slices.Contains(rules[r.Rule.Peer], name) {
			rules[r.Rule.Peer] = append(rules[r.Rule.Peer], name)
		}
	}
	shown := make([]overview.Peer, len(plan.Admitted))
	for i, p := range plan.Admitted {
		slices.Sort(rules[p.Name])
		shown[i] = overview.Peer{
			Name: p.Name, User: p.User, Device: p.Device, Namespaces: p.Namespaces, Cluster: p.Cluster, Rules: rules[p.Name], Limits: limits[p.User], Key: p.Key,
		}
		for _, at := range p.Addresses() {
			shown[i].Addresses = append(shown[i].Addresses, at.String())
		}
	}
	slices.SortFunc(shown, func(a, b overview.Peer) int { return cmp.Compare(a.Name, b.Name) })
	a.shown.Store(&shown)
}
