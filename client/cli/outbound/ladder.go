package outbound

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// The ways in which a command can reach the cluster.
const (
	modeAuto      = "auto"      // the first of those below that there is
	modeNamespace = "namespace" // a network of its own
	modeTUN       = "tun"       // the machine's network, which podnet may change
	modeProxy     = "proxy"     // a proxy in its environment
	modeSystem    = "system"    // a session of the daemon, whoever may have that
)

var modes = []string{modeAuto, modeNamespace, modeTUN, modeProxy, modeSystem}

// HostName is this machine's loopback, as commands in a network of their own know it.
const HostName = "host.podnet.internal"

// Rooms makes networks for commands; package sandbox has them.
type Rooms interface {
	// Open makes one. An error that has a method Blocked says that this machine has
	// none, whatever is asked for.
	Open(ctx context.Context, o RoomOptions) (Room, error)
	// Join finds one that another process keeps; nil: nobody does.
	Join(name string) (JoinedRoom, error)
	// Start has another process make one, connect in it, and keep it.
	Start(ctx context.Context, k KeptRoom, events func(localapi.Event)) error
	// Keep is that process.
	Keep(ctx context.Context) error
	// Agent is the process inside of one.
	Agent() error
}

// RoomOptions say how a Room is to be.
type RoomOptions struct {
	Isolate bool            `json:"isolate,omitempty"`
	Publish []proxy.Forward `json:"publish,omitempty"`
}

// KeptRoom is a Room that several commands share.
type KeptRoom struct {
	Name string `json:"name"`
	RoomOptions
	Request localapi.ConnectRequest `json:"request"`
}

// Room is a network for commands, and a session in it.
type Room interface {
	Runner
	// Connect keeps a session until ctx is done, and calls ready once there is one.
	Connect(ctx context.Context, req localapi.ConnectRequest, events func(localapi.Event), ready func()) error
	Published() []proxy.Forward
	Close() error
}

// JoinedRoom is a Room of another process.
type JoinedRoom interface {
	Runner
	// End takes it down.
	End(ctx context.Context) error
	Close() error
}

// Runner runs commands.
type Runner interface {
	// Run starts a command, passes signals on to it and returns its exit status. A
	// *syscall.Errno in an error says that it did not start.
	Run(ctx context.Context, c Command, signals <-chan os.Signal) (status int, err error)
}

// Command is what to run.
type Command struct {
	Path       string
	Args       []string
	Env        []string
	Dir        string
	Foreground bool // it shares the terminal's process group with us
	Files      [3]*os.File
}

// run finds the first way that there is, and takes it.
func (x *execution) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if x.leave != "" {
		return x.end(ctx)
	}
	if err := x.addEnvironment(ctx); err != nil {
		return err
	}
	if x.join != "" {
		done, err := x.joined(ctx)
		if done || err != nil {
			return err
		}
	}
	for _, mode := range x.ladder() {
		switch mode {
		case modeNamespace:
			room, err := x.open(ctx)
			if x.steps(err) {
				continue
			}
			if err != nil {
				return err
			}
			x.say(modeNamespace, "a network of the command's own")
			return x.inside(ctx, room)
		case modeTUN:
			if x.mode == modeAuto && (x.env.Privileged == nil || !x.env.Privileged()) {
				continue
			}
			x.say(modeTUN, "this machine's network, while the command runs")
			return x.system(cmd)
		case modeProxy:
			x.say(modeProxy, "a proxy, by ALL_PROXY, HTTP_PROXY and HTTPS_PROXY: programs that heed none do not reach the cluster")
			return x.proxied(ctx)
		case modeSystem:
			return x.system(cmd)
		}
	}
	return errors.New("there is no way to the cluster for a command")
}

// ladder are the ways to try.
func (x *execution) ladder() []string {
	switch {
	case x.mode != modeAuto:
		return []string{x.mode}
	case x.env.Rooms == nil, x.session != "": // which names one of the daemon's
		return []string{modeSystem}
	}
	return []string{modeNamespace, modeTUN, modeProxy}
}

func (x *execution) open(ctx context.Context) (Room, error) {
	if x.env.Rooms == nil {
		return nil, &localapi.Error{Code: localapi.CodeUsage, Message: "this system has no network namespaces", Hint: "--mode system or --mode proxy"}
	}
	return x.env.Rooms.Open(ctx, x.roomOptions())
}

func (x *execution) roomOptions() RoomOptions { return RoomOptions{x.isolate, x.ports} }

// steps says that exec goes on without a Room, and says so to the user.
func (x *execution) steps(err error) bool {
	var blocked interface {
		error
		Blocked()
	}
	if !errors.As(err, &blocked) || x.mode != modeAuto || x.isolate {
		return false
	}
	text := "no network of the command's own: " + err.Error()
	var advice interface{ Hint() string }
	if errors.As(err, &advice) && advice.Hint() != "" {
		text += " (" + advice.Hint() + ")"
	}
	x.told.Event(localapi.Event{Type: localapi.EventWarning, Time: time.Now(), ElapsedMs: time.Since(x.start).Milliseconds(), Code: "no-namespace", Text: text})
	if len(x.ports) > 0 {
		fmt.Fprintln(x.env.Err, "warning: --publish is for nothing: the command's ports are this machine's as they are")
	}
	return true
}

// say tells which way was taken.
func (x *execution) say(mode, text string) {
	e := localapi.Event{Type: localapi.EventMode, Time: time.Now(), ElapsedMs: time.Since(x.start).Milliseconds(), Code: mode, Text: text}
	x.told.Event(e)
}

// inside runs the command in a Room.
func (x *execution) inside(ctx context.Context, room Room) error {
	defer room.Close()
	for _, p := range room.Published() {
		fmt.Fprintf(x.env.Notes(), "%s %s leads to the command's %s\n", p.Network, p.Listen, p.To)
		warnOpen(x.env, p.Listen.String())
	}
	return x.during(ctx, lasting{
		begin: func(ctx context.Context, ready func()) error { return room.Connect(ctx, x.req, x.told.Event, ready) },
		lost:  "the cluster is out of reach now",
	}, room, x.command)
}

// proxied runs the command with a proxy.
func (x *execution) proxied(ctx context.Context) error {
	at := ""
	command := x.command
	return x.during(ctx, lasting{
		begin: func(ctx context.Context, ready func()) error {
			return x.env.Proxy(ctx, ProxyOptions{Request: x.req, Listen: "127.0.0.1:0", Events: x.told.Event, Ready: func(proxy string, _ []proxy.Forward) {
				at = proxy
				ready()
			}})
		},
		change: func(c *Command) { c.Env = proxyEnviron(c.Env, at) },
		lost:   "the cluster is out of reach now",
	}, here{}, command)
}

// joined runs the command in a Room that is kept. It reports false where there are none
// and another way is to be taken.
func (x *execution) joined(ctx context.Context) (done bool, err error) {
	if x.env.Rooms == nil {
		_, err := x.open(ctx)
		return false, err
	}
	room, err := x.env.Rooms.Join(x.join)
	if err == nil && room == nil {
		err = x.env.Rooms.Start(ctx, KeptRoom{x.join, x.roomOptions(), x.req}, x.told.Event)
		if x.steps(err) {
			fmt.Fprintln(x.env.Err, "warning: --join is for nothing: each command has a tunnel of its own then")
			return false, nil
		}
		if err == nil {
			room, err = x.env.Rooms.Join(x.join)
		}
	} else if err == nil && (x.req.As != "" || x.isolate || len(x.ports) > 0) {
		fmt.Fprintf(x.env.Err, "warning: the sandbox %s is as its first command has made it: flags that say otherwise count for nothing\n", x.join)
	}
	switch {
	case err != nil:
		return false, err
	case room == nil:
		return false, &localapi.Error{Code: localapi.CodeEnded, Message: "the sandbox " + x.join + " has just ended", Hint: "try again"}
	}
	defer room.Close()
	x.say(modeNamespace, "in the sandbox "+x.join)
	command := x.command
	command.Foreground = false // its parent is another process, which the terminal does not know
	return true, x.carryOut(ctx, room, command, false, nil, "")
}

// end takes down a Room that is kept.
func (x *execution) end(ctx context.Context) error {
	var room JoinedRoom
	var err error
	if x.env.Rooms != nil {
		room, err = x.env.Rooms.Join(x.leave)
	}
	switch {
	case err != nil:
		return err
	case room == nil:
		fmt.Fprintf(x.env.Notes(), "there is no sandbox %s\n", x.leave)
		return nil
	}
	defer room.Close()
	return room.End(ctx)
}
