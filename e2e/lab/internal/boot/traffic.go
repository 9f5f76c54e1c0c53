package boot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/proc"
	"podnet.dev/e2e/lab/internal/router"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
	"podnet.dev/internal/wire"
)

// routerFile keeps what the user wants of the router.
const routerFile = "router.json"

// Traffic is what the router is told to do now.
func (l *Lab) Traffic() (router.State, error) {
	var s router.State
	return s, l.State.ReadJSON(routerFile, &s)
}

// ChangeTraffic changes what the router does, and makes it so.
func (l *Lab) ChangeTraffic(ctx context.Context, change func(*router.State)) error {
	s, err := l.Traffic()
	if err != nil {
		return err
	}
	change(&s)
	if err := router.Load(ctx, l.Plan, s); err != nil {
		return err
	}
	if err := l.State.WriteJSON(routerFile, s); err != nil {
		return err
	}
	return l.wires(ctx, s.Wires)
}

// SetNAT puts a machine behind a NAT; empty takes the NAT away. Mappings of the
// one before are void.
func (l *Lab) SetNAT(ctx context.Context, m topology.Machine, kind router.NAT) error {
	if err := l.ChangeTraffic(ctx, func(s *router.State) { s.SetNAT(m.Name, kind) }); err != nil {
		return err
	}
	return forget(ctx, m)
}

// Rebind makes a machine's NAT forget its mappings and take other ports from
// now on, as home routers do when they restart.
func (l *Lab) Rebind(ctx context.Context, m topology.Machine) error {
	if err := l.ChangeTraffic(ctx, func(s *router.State) { s.Rebind(m.Name) }); err != nil {
		return err
	}
	return forget(ctx, m)
}

// forget empties the connection tracking of a machine's edge.
func forget(ctx context.Context, m topology.Machine) error {
	_, err := netns.Run(ctx, m.EdgeNS(), "", "conntrack", "-F")
	return err
}

// Link takes a machine's own link up or down.
func (l *Lab) Link(ctx context.Context, m topology.Machine, up bool) error {
	lines := []string{"link set eth0 down"}
	if up {
		// The kernel has forgotten the routes through it.
		lines = []string{"link set eth0 up",
			fmt.Sprintf("addr replace %s/%d dev eth0 nodad", m.Addr6, m.LAN6.Bits()),
			fmt.Sprintf("route replace default via %s", m.GW4), fmt.Sprintf("route replace ::/0 via %s", m.GW6)}
	}
	return netns.Batch(ctx, m.NS(), lines)
}

// Move takes a laptop somewhere else, see topology.Lab.Moved.
func (l *Lab) Move(ctx context.Context, name, where string) error {
	from, err := l.Plan.Machine(name)
	if err != nil {
		return err
	}
	to, err := l.Plan.Moved(name, where)
	if err != nil || from == to {
		return err
	}
	if err := l.routes(ctx, topology.Move(from, to)); err != nil {
		return err
	}
	if l.Plan, err = l.Plan.WithMoved(map[string]string{name: where}); err != nil {
		return err
	}
	if err := l.ChangeTraffic(ctx, func(s *router.State) { s.Move(name, where) }); err != nil {
		return err
	}
	if p, err := l.State.Procs().Get(wireName(to)); err == nil && p.Alive() {
		return l.routes(ctx, to.WireOn())
	}
	return nil
}

// wireName is the process that is a machine's wire.
func wireName(m topology.Machine) string { return "wire-" + m.Name }

// wires starts, changes and ends wires until they are the wanted ones.
func (l *Lab) wires(ctx context.Context, want map[string]wire.Config) error {
	for _, m := range l.Plan.Machines {
		p, err := l.State.Procs().Get(wireName(m))
		alive := err == nil && p.Alive()
		_, wanted := want[m.Name]
		switch {
		case wanted && alive:
			err = p.Signal(syscall.SIGHUP)
		case wanted:
			err = l.startWire(ctx, m)
		case alive:
			err = l.stopWire(ctx, m)
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("wire of %s: %w", m.Name, err)
		}
	}
	return nil
}

func (l *Lab) startWire(ctx context.Context, m topology.Machine) error {
	s := proc.Spec{
		Name: wireName(m), Log: l.State.Log(wireName(m)), Argv: []string{l.self, VerbWire, m.Name},
		Env: []string{"PODNET_LAB_STATE=" + string(l.State)},
	}
	if err := l.startReady(s, func(*exec.Cmd) {}); err != nil {
		return err
	}
	return l.routes(ctx, m.WireOn())
}

func (l *Lab) stopWire(ctx context.Context, m topology.Machine) error {
	if err := l.routes(ctx, m.WireOff()); err != nil {
		return err
	}
	if err := l.State.Procs().Stop(ctx, wireName(m), time.Second); err != nil {
		return err
	}
	return l.State.Procs().Forget(wireName(m))
}

func (l *Lab) routes(ctx context.Context, batches []topology.Batch) error {
	for _, b := range batches {
		if err := netns.Batch(ctx, b.NS, b.Lines); err != nil {
			return err
		}
	}
	return nil
}

// RunWire is what the process behind VerbWire does: it is the cable between a
// machine's edge and the router, and reads how bad it is again on SIGHUP.
func RunWire(ctx context.Context, dir state.Dir, name string) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	_, plan, err := dir.Load()
	if err != nil {
		return err
	}
	m, err := plan.Machine(name)
	if err != nil {
		return err
	}
	config := func() (wire.Config, error) {
		var s router.State
		err := dir.ReadJSON(routerFile, &s)
		return s.Wires[name], err
	}
	c, err := config()
	if err != nil {
		return err
	}
	edge, err := openTUN(ctx, m.EdgeNS(), topology.EdgeWire)
	if err != nil {
		return err
	}
	middle, err := openTUN(ctx, topology.RouterNS, topology.RouterWire(name))
	if err != nil {
		return err
	}
	w := wire.New(edge, middle, c)
	go func() {
		for range hup {
			if c, err := config(); err == nil {
				w.Set(c)
			}
		}
	}()
	if err := sayReady(); err != nil {
		return err
	}
	return w.Run(ctx)
}

func openTUN(ctx context.Context, ns, name string) (*os.File, error) {
	var f *os.File
	err := netns.Do(ns, func() (err error) {
		f, err = wire.OpenTUN(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, netns.Batch(ctx, ns, []string{"link set " + name + " mtu 1500 txqueuelen 1000 up"})
}

// Stop ends a component, as a crash does where it is told to kill. Start runs
// it again as it was.
func (l *Lab) Stop(ctx context.Context, name string, kill bool) error {
	p, err := l.component(name)
	if err != nil {
		return err
	}
	if kill && p.Alive() {
		if err := p.Signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	return l.State.Procs().Stop(ctx, name, 3*time.Second)
}

// Start runs a component that was stopped, and waits for the API server where
// it is the one.
func (l *Lab) Start(ctx context.Context, name string) error {
	p, err := l.component(name)
	if err != nil || p.Alive() {
		return err
	}
	if _, err := l.State.Procs().Start(p.Spec, nil); err != nil {
		return err
	}
	if name == "apiserver" {
		return l.serverReady(ctx)
	}
	return nil
}

// component is the record of something that may be stopped: not a machine and
// not a wire, which have verbs of their own.
func (l *Lab) component(name string) (proc.Process, error) {
	all, err := l.State.Procs().All()
	if err != nil {
		return proc.Process{}, err
	}
	var names []string
	for _, p := range all {
		if strings.HasPrefix(p.Name, "machine-") || strings.HasPrefix(p.Name, "wire-") {
			continue
		}
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return proc.Process{}, fmt.Errorf("no component %q: there are %s", name, strings.Join(names, ", "))
}
