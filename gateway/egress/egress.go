// Package egress opens flows that leave from a pod: it asks the pod's agent, who
// connects to the target from there. What is asked for was allowed before.
//
// It knows neither who sends nor which agent is whose.
package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/netstack"
	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// reachTime is how long an agent may take to be reached, before it is asked
// anything.
const reachTime = control.Silence

// Exit opens flows through one agent. Two are equal when they are the same way
// out.
type Exit struct {
	// Agent and Self are the tunnel addresses of the agent and of this gateway.
	Agent, Self netip.Addr
	// Rule is by which the flows leave, for the agent's counts.
	Rule  string
	Stack *netstack.Stack
}

var _ forward.Exit = Exit{}

// DialTCP implements forward.Exit.
func (e Exit) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return e.open(ctx, steer.TCP, to)
}

// DialUDP implements forward.Exit.
func (e Exit) DialUDP(ctx context.Context, to netip.AddrPort) (forward.Datagrams, error) {
	c, err := e.open(ctx, steer.UDP, to)
	if err != nil {
		return nil, err
	}
	return control.NewDatagrams(c), nil
}

// open has the agent open a flow. An agent that is not there or breaks off is as
// a network that lets nothing out, EACCES: the target has refused nothing.
func (e Exit) open(ctx context.Context, protocol steer.Protocol, to netip.AddrPort) (net.Conn, error) {
	reach, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	c, err := e.Stack.DialTCPFrom(reach, e.Self, netip.AddrPortFrom(e.Agent, control.EgressPort))
	if err != nil {
		return nil, fmt.Errorf("reach the agent: %v: %w", err, syscall.EACCES)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	var answer control.Opened
	if err = control.Write(c, control.Open{Protocol: protocol, To: to, Rule: e.Rule}); err == nil {
		err = control.ReadOpen(c, &answer)
	}
	switch {
	case !stop():
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("ask the agent: %v: %w", err, syscall.EACCES)
	default:
		err = answer.Err()
	}
	if err != nil {
		splice.Reset(c)
		return nil, err
	}
	return c, nil
}
