package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/report"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

const (
	// waitEvery is how long wait rests between two looks.
	waitEvery = 500 * time.Millisecond
	// waitDial is how long one connection to a Service may take.
	waitDial = 3 * time.Second
)

func newWait(env *caller.Env) *cobra.Command {
	var wanted []string
	var timeout time.Duration
	var output string
	cmd := &cobra.Command{
		Use:   "wait [--for CONDITION]... [--timeout 60s]",
		Short: "Wait until something works",
		Long: `Wait until all of the conditions hold at once. The exit status is 5 when they do
not in time, and the error names those that are missing.

  connected                  the host's route leads into the tunnel, and the
                             gateway's DNS answers through it
  dns                        also, programs of this machine get the cluster's names
  service/shop/web           the Service's name has an address
  service/shop/web:80        and that TCP port takes a connection

  podnet wait                                         until connected
  podnet wait --for dns --for service/shop/web:80 --timeout 2m

It may begin before connect does.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return exit.Usagef("timeout %v: want a time, as 60s", timeout)
			}
			c, _ := session.Client(cmd)
			w := &waiter{client: c, session: session.NameOf(cmd), say: func(text string) { fmt.Fprintln(env.Notes(), text) }}
			for _, text := range wanted {
				one, err := parseCondition(text)
				if err != nil {
					return err
				}
				w.conditions = append(w.conditions, one)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			err := w.run(ctx)
			if errors.Is(err, context.DeadlineExceeded) && cmd.Context().Err() == nil {
				err = &localapi.Error{Code: localapi.CodeTimeout, Message: fmt.Sprintf("not within %v: %s", timeout, strings.Join(w.missing, "; ")), Hint: "--timeout waits longer; podnet status and podnet doctor say more"}
			}
			if err != nil {
				return session.WithLog(cmd.Context(), c, err)
			}
			if output != "" {
				s, err := session.Status(cmd.Context(), c)
				if err != nil {
					return err
				}
				return report.Status(env, output, s)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&wanted, "for", []string{"connected"}, "connected, dns or service/NAMESPACE/NAME[:PORT], repeatable")
	f.DurationVar(&timeout, "timeout", time.Minute, "how long to wait at most")
	answer.Flag(f, &output, answer.ListForms, ": print the status at the end")
	session.Flag(cmd)
	return cmd
}

// condition is something to wait for.
type condition struct {
	name string
	// lacks says what is not there yet; nil: it is there.
	lacks func(context.Context, *glance) error
}

var (
	forConnected = condition{"connected", func(_ context.Context, g *glance) error { return orNil(g.probe.Tunnel) }}
	forNames     = condition{"dns", func(_ context.Context, g *glance) error { return orNil(cmp.Or(g.probe.Tunnel, g.probe.Names)) }}
)

// orNil keeps no error from becoming one.
func orNil(e *localapi.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// glance is how a session is at one moment.
type glance struct {
	client     *localapi.Client
	connection localapi.Connection
	probe      localapi.Probe
}

// parseCondition reads what stands behind --for.
func parseCondition(text string) (condition, error) {
	bad := func(why string) (condition, error) {
		return condition{}, &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("--for %q: %s", text, why), Hint: "--for connected, --for dns, --for service/shop/web or --for service/shop/web:80"}
	}
	switch text {
	case forConnected.name:
		return forConnected, nil
	case forNames.name:
		return forNames, nil
	}
	path, port, hasPort := strings.Cut(text, ":")
	parts := strings.Split(path, "/")
	if len(parts) != 3 || parts[0] != "service" && parts[0] != "svc" {
		return bad("no such condition")
	}
	for _, name := range parts[1:] {
		if localapi.CheckNamespace(name) != nil { // the same letters
			return bad(fmt.Sprintf("%q is no name", name))
		}
	}
	if number, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || number == 0) {
		return bad(fmt.Sprintf("%q is no TCP port", port))
	}
	return condition{text, func(ctx context.Context, g *glance) error { return g.serves(ctx, parts[1], parts[2], port) }}, nil
}

// serves tries a Service by its name, as this machine's programs would, and a port of
// it unless that is empty.
func (g *glance) serves(ctx context.Context, namespace, name, port string) error {
	host := name + "." + namespace + ".svc." + g.connection.DNS.Alias // whichever session is primary
	var addrs []string
	for _, kind := range []string{"A", "AAAA"} {
		a, err := g.client.QueryDNS(ctx, host, kind)
		if err != nil {
			return err
		}
		for _, r := range a.Answers {
			if r.Type == kind {
				addrs = append(addrs, r.Data)
			}
		}
	}
	if len(addrs) == 0 {
		return fmt.Errorf("its name has no address")
	}
	if port == "" {
		return nil
	}
	var last error
	for _, a := range addrs {
		d := net.Dialer{Timeout: waitDial}
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(a, port))
		if err == nil {
			return conn.Close()
		}
		last = err
	}
	return last
}

// waiter waits until all conditions hold.
type waiter struct {
	client     *localapi.Client
	session    string
	conditions []condition
	// say hears of each condition when it holds for the first time.
	say func(string)
	// missing is what the last look did not find.
	missing []string
}

// run looks until nothing is missing. Its error is ctx's, or of a kind that waiting
// does not mend.
func (w *waiter) run(ctx context.Context) error {
	began := time.Now()
	said := map[string]bool{}
	for {
		missing, holds, err := w.look(ctx)
		if ctx.Err() != nil { // what was asked then says nothing
			if w.missing == nil {
				w.missing = []string{"no answer in time"}
			}
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		w.missing = missing
		for _, name := range holds {
			if !said[name] {
				said[name] = true
				w.say(fmt.Sprintf("%5.1fs  %s", time.Since(began).Seconds(), name))
			}
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-time.After(waitEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look tries every condition once.
func (w *waiter) look(ctx context.Context) (missing, holds []string, err error) {
	s, err := session.Status(ctx, w.client)
	if err != nil {
		return nil, nil, err
	}
	g := glance{client: w.client}
	g.connection, err = session.Of(s, w.session)
	if err == nil && g.connection.Since == nil {
		err = notYet(fmt.Sprintf("connecting (phase %s)", g.connection.Phase))
	}
	if err == nil {
		g.probe, err = w.client.Probe(ctx)
	}
	var e *localapi.Error
	switch {
	case errors.Is(err, localapi.ErrNoDaemon):
		err = notYet("nothing is connected")
	case errors.As(err, &e) && e.Code == localapi.CodeNotConnected && s.LastError != nil:
		err = notYet(e.Message + ": " + s.LastError.Message)
	}
	if errors.As(err, &e) && e.Code == localapi.CodeNotConnected {
		return []string{e.Message}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, one := range w.conditions {
		if lack := one.lacks(ctx, &g); lack != nil {
			missing = append(missing, one.name+": "+lack.Error())
		} else {
			holds = append(holds, one.name)
		}
	}
	return missing, holds, nil
}

func notYet(text string) error {
	return &localapi.Error{Code: localapi.CodeNotConnected, Message: text}
}
