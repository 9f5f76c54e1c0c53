package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"podnet.dev/gateway/agent/serve"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// lastCalls is how long somebody may still come who has not heard that a Service
// leads elsewhere by now: kube-proxy writes its rules once a second at most by
// default, and in a large cluster takes many seconds for it.
const lastCalls = 30 * time.Second

// FrontConfig is what a Front needs. Its functions may be called by several
// goroutines at once.
type FrontConfig struct {
	// Service is the UID by which the gateways know what the Front is for.
	Service string
	// Key is the Front's own, and no other agent's.
	Key key.Private
	// Gateways are where it goes first; they tell it of the others.
	Gateways []control.Gateway
	// Listen opens a TCP listener for a port of the Service.
	Listen func(context.Context) (net.Listener, error)
	// App connects to a program behind a port of the Service.
	App func(ctx context.Context, port uint16) (*net.TCPConn, error)
	Log *slog.Logger
}

// Front is an agent that is in no pod but before those of a Service, within a
// gateway's process: what the Service's clients send comes to listeners of its own,
// and the app is whichever pod's program App connects to. It speaks with gateways
// and laptops like any other agent.
//
// What no rule takes it passes on, whether or not any gateway or laptop is there,
// until it is told to retire.
type Front struct {
	w        *worker
	in       *listened
	steering context.Context
	retire   context.CancelFunc
}

// NewFront makes a Front that listens nowhere yet. Run must be called to use and
// to close it.
func NewFront(c FrontConfig) (*Front, error) {
	app := func(ctx context.Context, k serve.PortKey) (*net.TCPConn, error) { return c.App(ctx, k.Port) }
	w, err := newWorker(Options{PodUID: c.Service, Gateways: c.Gateways}, c.Key, serve.Config{App: app, Listen: c.Listen}, c.Log)
	if err != nil {
		return nil, err
	}
	in := &listened{serve: w.serve}
	w.intake, w.lasts = in, true
	f := &Front{w: w, in: in}
	f.steering, f.retire = context.WithCancel(context.Background())
	return f, nil
}

// Run steers until ctx ends, or until the Front is told to retire and its last
// connection is over. It closes the Front.
func (f *Front) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, f.w.Close()) }()
	defer context.AfterFunc(ctx, f.retire)()
	if err := f.w.run(f.steering); err != nil {
		return err
	}
	pause(ctx, lastCalls)
	f.w.serve.Drain(ctx)
	return nil
}

// Retire ends the steering, once nobody is sent to the Front any more. What is open
// with laptops ends; what is open with the app goes on, and who connects within
// lastCalls gets the app. Further calls do nothing.
func (f *Front) Retire() { f.retire() }

// Set listens for exactly these ports of the Service, and returns where: by the
// Service's port the Front's own. The error says which ports have no listener.
func (f *Front) Set(ports []uint16) (map[uint16]uint16, error) {
	open, err := f.in.set(ports)
	f.w.poke()
	return open, err
}

// Conns is how many connections are open.
func (f *Front) Conns() int { return f.w.serve.Conns() }

// listened takes in what is sent to listeners.
type listened struct {
	serve *serve.Server

	mu   sync.Mutex
	open map[uint16]uint16 // listeners by the Service's ports
}

func (in *listened) set(ports []uint16) (map[uint16]uint16, error) {
	keys := make([]serve.PortKey, len(ports))
	for i, p := range ports {
		keys[i] = serve.PortKey{Protocol: steer.TCP, Port: p}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	listening, err := in.serve.Set(keys)
	in.open = map[uint16]uint16{}
	for _, p := range listening {
		in.open[p.From] = p.To
	}
	return maps.Clone(in.open), err
}

// take takes in what comes to the listeners anyway.
func (in *listened) take(ports []serve.PortKey) ([]serve.PortKey, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ports), func(k serve.PortKey) bool {
		return k.Protocol != steer.TCP || in.open[k.Port] == 0
	}), nil
}
