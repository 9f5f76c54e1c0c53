package outbound

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/child"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// ProxyOptions are what podnet proxy asks for.
type ProxyOptions struct {
	Request  localapi.ConnectRequest
	Listen   string // host:port of the proxy; empty: none
	Forwards []proxy.Forward
	// Events hears of the progress, Ready of the ports when all is ready.
	Events func(localapi.Event)
	Ready  func(proxy string, forwards []proxy.Forward)
}

// proxyPort is the port that other tools of the kind listen on, too.
const proxyPort = "127.0.0.1:1055"

func newProxy(env *setting) *cobra.Command {
	o := ProxyOptions{}
	p := proxyRun{env: env}
	var lease time.Duration
	var forwards []string
	cmd := &cobra.Command{
		Use:   "proxy [-n NAMESPACE]... [--forward PORT=HOST:PORT]... [-- COMMAND...]",
		Short: "Reach the cluster by a proxy, without any privilege",
		Long: `Join the cluster inside this process, and let programs in by a proxy for SOCKS5
and HTTP, on one port, and by ports that lead to one address each. It needs no
privilege and changes nothing on this machine. It lasts until it is interrupted,
or as long as the command, whose exit status it has; the command finds the proxy
in its environment.

  podnet proxy -n shop
  podnet proxy -n shop -- curl http://web.shop
  podnet proxy -n shop --forward 5432=db.shop:5432 -- psql -h localhost
  podnet proxy --listen= --forward 5353=dns.shop:53/udp
  eval "$(podnet proxy --detach --wait -n shop)"; curl http://web.shop
  kill $PODNET_PROXY_PID

What is not the cluster's goes where it would without the proxy. Programs differ
in which variables they heed: curl HTTP_PROXY in small letters only and ALL_PROXY
in both, Go HTTP_PROXY and HTTPS_PROXY, Java and psql none, for which there is
--forward. Whoever reaches a port may use it: by default that is this machine.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, command, err := child.Cut(cmd, args)
			switch {
			case err != nil:
				return err
			case len(args) > 0:
				return exit.Usagef("%q is one thing too many: a command stands behind --, as in -- npm test", args[0])
			}
			for _, text := range forwards {
				f, err := proxy.ParseForward(text)
				if err != nil {
					return exit.Usagef("%v", err)
				}
				o.Forwards = append(o.Forwards, f)
			}
			if err := checkListen(o.Listen, len(o.Forwards)); err != nil {
				return err
			}
			if err := flags.CheckConnect(&o.Request, lease); err != nil {
				return err
			}
			if o.Request.Kube, err = env.Kube.Kube(env.Environ); err != nil {
				return exit.Usagef("%v", err)
			}
			p.command = command
			switch {
			case p.output != "" && command != nil:
				return exit.Usagef("--output is about ports, and standard output the command's: one of the two")
			case p.detach && command != nil:
				return exit.Usagef("--detach leaves the proxy running, and a command ends it: one of the two")
			case p.detach:
				return p.leave(cmd.Context())
			}
			return p.run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	flags.Connect(f, env.Environ, &o.Request, &lease)
	f.StringVar(&o.Listen, "listen", proxyPort, "address and port of the proxy; port 0: any, empty: none")
	f.StringArrayVar(&forwards, "forward", nil, "[ADDRESS:]PORT=HOST:PORT[/udp]: a port of this machine that leads there, repeatable; port 0: any")
	f.BoolVar(&p.detach, "detach", false, "leave it running in the background, and return once it is ready")
	f.DurationVar(&p.wait, "wait", 0, "how long to wait at most until it is ready (default without a value: 60s)")
	f.Lookup("wait").NoOptDefVal = "60s"
	answer.Flag(f, &p.output, append(slices.Clone(answer.FactForms), answer.JSONStream), ": how to print where the ports are; json-stream: each step before that, too, as a line of JSON")
	env.Kube.AddTo(f)
	return cmd
}

// checkListen finds what is wrong with where the proxy is to listen.
func checkListen(listen string, forwards int) error {
	if listen == "" {
		if forwards == 0 {
			return exit.Usagef("neither a proxy nor a forward: nobody could come in")
		}
		return nil
	}
	if _, err := netip.ParseAddrPort(listen); err != nil {
		return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("--listen %q is no address with a port", listen), Hint: "--listen " + proxyPort}
	}
	return nil
}

// proxyRun is one run of podnet proxy.
type proxyRun struct {
	env     *setting
	command []string
	detach  bool
	wait    time.Duration
	output  string
}

// run runs the proxy, and the command if there is one.
func (p *proxyRun) run(ctx context.Context, o ProxyOptions) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	steps := p.env.Progress(p.output)
	defer steps.End()
	o.Events = steps.Event
	ready := make(chan string, 1)
	o.Ready = func(at string, forwards []proxy.Forward) {
		p.tell(newOpenPorts(at, forwards))
		ready <- at
	}
	over := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { over <- p.env.Proxy(ctx, o) })
	var late <-chan time.Time
	if p.wait > 0 {
		timer := time.NewTimer(p.wait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case err := <-over:
		return err
	case <-late:
		end()
		<-over
		return &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("not ready after %v", p.wait), Hint: "--wait=5m waits longer; the last line above says where it was"}
	case at := <-ready:
		if p.command == nil {
			return <-over
		}
		with := *p.env.Env
		with.Environ = proxyEnviron(p.env.Environ, at)
		defer end()
		return child.Run(ctx, &with, p.command, over, "the cluster is out of reach now")
	}
}

// tell says where programs may come in: as JSON, or as shell for other terminals when
// this one has no command.
func (p *proxyRun) tell(at openPorts) {
	for _, f := range at.Forwards {
		fmt.Fprintf(p.env.Notes(), "%s %s leads to %s\n", f.Network, f.Listen, f.To)
		warnOpen(p.env, f.Listen)
	}
	if at.Address != "" {
		fmt.Fprintf(p.env.Notes(), "SOCKS5 and HTTP proxy at %s\n", at.Address)
		warnOpen(p.env, at.Address)
	}
	switch {
	case p.output == answer.JSONStream:
		_ = json.NewEncoder(p.env.Out).Encode(at)
	case p.output != "":
		_ = answer.Print(p.env.Out, p.output, at)
	case p.command == nil && (at.Address != "" || at.detached):
		fmt.Fprintln(p.env.Out, at.shell())
	}
}

func warnOpen(env *setting, at string) {
	if a, err := netip.ParseAddrPort(at); err == nil && !a.Addr().Unmap().IsLoopback() {
		fmt.Fprintf(env.Err, "warning: whoever reaches %s reaches the cluster as you\n", at)
	}
}

// proxyVariables are what programs read to find a proxy, in the spelling of each.
func proxyVariables(at string) []string {
	if host, port, err := net.SplitHostPort(at); err == nil {
		if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
			at = net.JoinHostPort("127.0.0.1", port)
		}
	}
	all := []string{"ALL_PROXY=socks5h://" + at, "HTTP_PROXY=http://" + at, "HTTPS_PROXY=http://" + at, "NO_PROXY=localhost,127.0.0.1,::1"}
	for _, v := range slices.Clone(all) {
		name, value, _ := strings.Cut(v, "=")
		all = append(all, strings.ToLower(name)+"="+value)
	}
	return all
}

// proxyEnviron is an environment with the proxy in it; "" leaves it as it is.
func proxyEnviron(environ []string, at string) []string {
	if at == "" {
		return environ
	}
	return append(slices.Clone(environ), proxyVariables(at)...) // the last of a name counts
}
