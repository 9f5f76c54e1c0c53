// Package agent is the process that steers a pod's traffic: an ephemeral
// container in the pod's network namespace, which lives while somebody steers the
// pod and undoes itself when nobody does.
//
// It is two processes. The worker does everything: it shakes hands with the
// gateways by WireGuard, hears the pod's rules from them, keeps a connection to
// each laptop that has a rule, and redirects the ports of those rules that are
// in force. The parent only watches the worker: when it dies, the parent removes
// the redirection at once and starts another one with the same key.
//
// It knows nothing of Kubernetes. What happens to a redirected connection is
// package serve's matter, how it is redirected package redirect's.
package agent

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// Options are the program's arguments. A pod's spec can be read by many, so
// nothing in them is secret.
type Options struct {
	PodUID string
	// Gateways are where the agent goes first; they tell it of the others.
	Gateways []control.Gateway
	// NodeAddrs are the node's, from which the kubelet probes; so it does from
	// where the pod's default routes lead, which the agent finds out itself.
	NodeAddrs []netip.Addr
	// NoRedirect says that the agent takes nothing of the pod's traffic, and only
	// lets flows leave from the pod: that needs no privilege.
	NoRedirect bool
	// Version asks only for the program's version.
	Version bool
}

// ParseOptions reads the program's arguments. When they ask for help, it writes
// that to usage, and the error is flag.ErrHelp.
func ParseOptions(args []string, usage io.Writer) (Options, error) {
	var o Options
	fs := flag.NewFlagSet("podnet-agent", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.StringVar(&o.PodUID, "pod-uid", "", "the `UID` of the pod")
	fs.Func("gateway", "a gateway, as `KEY@IP:PORT,IP:PORT` (repeatable)", func(s string) error {
		g, err := parseGateway(s)
		o.Gateways = append(o.Gateways, g)
		return err
	})
	fs.Func("node-addr", "an `IP` address of the pod's node (repeatable)", func(s string) error {
		a, err := netip.ParseAddr(s)
		o.NodeAddrs = append(o.NodeAddrs, a.Unmap())
		return err
	})
	fs.BoolVar(&o.NoRedirect, "no-redirect", false, "redirect nothing: only send as the pod, which needs no capability")
	fs.BoolVar(&o.Version, "version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return Options{}, err
	}
	switch {
	case o.Version:
	case fs.NArg() > 0:
		return Options{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.PodUID == "":
		return Options{}, errors.New("--pod-uid is needed")
	case len(o.Gateways) == 0:
		return Options{}, errors.New("--gateway is needed")
	}
	return o, nil
}

func parseGateway(s string) (g control.Gateway, err error) {
	name, endpoints, ok := strings.Cut(s, "@")
	if !ok {
		return g, errors.New("want KEY@IP:PORT")
	}
	if g.PublicKey, err = key.ParsePublic(name); err != nil {
		return g, err
	}
	for e := range strings.SplitSeq(endpoints, ",") {
		a, err := netip.ParseAddrPort(e)
		if err != nil {
			return g, err
		}
		g.Endpoints = append(g.Endpoints, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	return g, nil
}
