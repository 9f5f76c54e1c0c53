package inbound

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/child"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/steer"
)

// steerFlags are what one command line says of its rules.
type steerFlags struct {
	req      localapi.SteerRequest
	matches  []steer.Match
	detach   bool
	output   string
	selector string
}

func newSteer(env *caller.Env) *cobra.Command {
	var o steerFlags
	cmd := &cobra.Command{
		Use:   "steer TARGET PORT[:LOCAL]... [-- COMMAND...]",
		Short: "Take requests that reach pods to this machine",
		Long: `Take what reaches a port of pods to a port of this machine: all of it, or the
requests that match. All pods of the target are steered, also those that come
later. Ends with Ctrl-C, or with the command behind --; with --detach it lives
as long as the session. Connects first where nothing is connected.

  podnet steer deploy/web 8080:3000 --header 'x-user: alice'
  podnet steer svc/web http:3000 --path '/api/*' --method POST
  podnet steer -l app=web 8080:3000 --header 'x-user: alice' -- npm start
  podnet steer sts/db 5432:15432 --mirror        a copy; the pods answer
  podnet steer deploy/dns 53/udp:5353            UDP, the whole port
  podnet steer svc/web http:3000 --via service   without agents in the pods

TARGET is KIND/NAME: pod, deploy, rs, sts, ds, job or svc. LOCAL is a port, or
host:port; without it the same number. A pattern is exact, a glob with *, or a
regular expression after a ~. All that is given must hold; --or begins another
set of conditions.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, command, err := child.Cut(cmd, args)
			if err != nil {
				return err
			}
			reqs, err := o.requests(args)
			if err != nil {
				return err
			}
			switch {
			case o.detach && command != nil:
				return exit.Usagef("--detach and a command do not go together: the rule would live as long as which of them?")
			}
			return runSteer(cmd, env, o, reqs, command)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.req.Namespace, "namespace", "n", "", "namespace of the target (default: the session's)")
	f.StringVarP(&o.selector, "selector", "l", "", "label selector in place of TARGET")
	f.StringVar(&o.req.Name, "name", "", "name of the rule (default: of target and port)")
	f.StringVar(&o.req.Via, "via", "", "service: have a gateway take what reaches the target's Service, where no agent may be put into its pods")
	f.BoolVar(&o.req.Mirror, "mirror", false, "copy requests; the pods answer")
	f.StringVar(&o.req.OnError, "on-error", localapi.OnErrorFail, "what becomes of requests that this machine does not take: fail, or app for the pod")
	f.StringVar(&o.req.ClientAddress, "client-address", "", "how the local program learns a client's address: proxy (PROXY protocol v2) or header (X-Forwarded-For)")
	f.BoolVar(&o.req.Inspect, "inspect", false, "keep heads and bodies of the last connections in memory, for podnet steer inspect")
	f.BoolVar(&o.detach, "detach", false, "leave the rule to the daemon and return once it is ready")
	answer.Flag(f, &o.output, answer.StreamForms, ": how to print the rules and each request")
	o.matchFlags(f)
	env.Kube.AddTo(f)
	session.Flag(cmd)
	cmd.AddCommand(newSteerList(env), newSteerStop(env), newSteerRevoke(env), newSteerInspect(env), newSteerApply(env))
	for _, c := range cmd.Commands() {
		if c.Args == nil {
			c.Args = flags.NoArguments
		}
	}
	return cmd
}

// matchFlags are those whose order matters.
func (o *steerFlags) matchFlags(f *pflag.FlagSet) {
	kind := "pattern"
	add := func(name, help string, set func(m *steer.Match, value string) error) {
		f.Var(matchFlag{o, kind, set}, name, help)
		f.Lookup(name).Annotations = map[string][]string{flags.NoVariable: {}}
	}
	add("header", "header field, as 'x-user: alice', repeatable", func(m *steer.Match, v string) error {
		name, value, ok := strings.Cut(v, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return errors.New("want 'name: pattern'")
		}
		m.Headers = append(m.Headers, steer.Condition{Name: name, Value: strings.TrimSpace(value)})
		return nil
	})
	add("query", "parameter of the query, as user=alice, repeatable", func(m *steer.Match, v string) error {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return errors.New("want name=pattern")
		}
		m.Query = append(m.Query, steer.Condition{Name: name, Value: value})
		return nil
	})
	for name, c := range map[string]struct {
		help string
		of   func(*steer.Match) *string
	}{
		"path":   {"path, as '/api/*'", func(m *steer.Match) *string { return &m.Path }},
		"method": {"method, as POST", func(m *steer.Match) *string { return &m.Method }},
		"host":   {"host, as 'web.*'", func(m *steer.Match) *string { return &m.Host }},
		"grpc":   {"gRPC method, as 'shop.Cart/*'", func(m *steer.Match) *string { return &m.GRPC }},
	} {
		add(name, c.help, func(m *steer.Match, v string) error {
			if *c.of(m) != "" {
				return errors.New("is given twice; --or begins another set of conditions")
			}
			if v == "" {
				return errors.New("is empty")
			}
			*c.of(m) = v
			return nil
		})
	}
	kind = "bool"
	add("or", "begin another set of conditions", func(*steer.Match, string) error {
		o.matches = append(o.matches, steer.Match{})
		return nil
	})
	f.Lookup("or").NoOptDefVal = "true"
}

// matchFlag adds to the last match.
type matchFlag struct {
	o    *steerFlags
	kind string
	set  func(*steer.Match, string) error
}

func (matchFlag) String() string { return "" }
func (m matchFlag) Type() string { return m.kind }
func (m matchFlag) Set(v string) error {
	if len(m.o.matches) == 0 {
		m.o.matches = make([]steer.Match, 1)
	}
	return m.set(&m.o.matches[len(m.o.matches)-1], v)
}

// requests are the rules of a command line, one for each port.
func (o *steerFlags) requests(args []string) ([]localapi.SteerRequest, error) {
	ports := args
	o.req.Selector = o.selector
	if o.selector == "" {
		if len(args) == 0 {
			return nil, exit.Usagef("nothing to steer was named: want TARGET PORT[:LOCAL], as in deploy/web 8080:3000")
		}
		o.req.Target, ports = args[0], args[1:]
	}
	if len(ports) == 0 {
		return nil, exit.Usagef("no port was named: want TARGET PORT[:LOCAL], as in deploy/web 8080:3000")
	}
	if o.req.Namespace != "" {
		if err := localapi.CheckNamespace(o.req.Namespace); err != nil {
			return nil, err
		}
	}
	var out []localapi.SteerRequest
	for _, p := range ports {
		r := o.req
		r.Hold, r.Matches = !o.detach, o.matches
		r.Port, r.Local, _ = strings.Cut(p, ":")
		if strings.HasSuffix(p, ":") {
			return nil, exit.Usagef("port %q: nothing behind the colon", p)
		}
		if r.Name != "" && len(ports) > 1 {
			r.Name += "-" + strings.ReplaceAll(r.Port, "/", "-")
		}
		if err := r.Check(); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func newSteerList(env *caller.Env) *cobra.Command {
	return newList(env, things[localapi.SteerRule]{
		short: "Say what is steered", plural: "rules",
		get: func(ctx context.Context, c *localapi.Client, owners bool, namespace string) ([]localapi.SteerRule, error) {
			list, err := c.Steered(ctx, owners, namespace)
			return list.Rules, err
		},
		whole: func(all []localapi.SteerRule) any { return localapi.NewSteerList(all) },
		place: func(r localapi.SteerRule) (namespace, name string) { return r.Namespace, r.Name },
		print: printRules, wide: printWideRules,
	})
}

func newSteerStop(env *caller.Env) *cobra.Command {
	return newStop(env, "Give requests back to the pods", "rules", "podnet steer list", "nothing is steered", func(ctx context.Context, c *localapi.Client, name string) ([]string, error) {
		r, err := c.StopSteering(ctx, name)
		return r.Rules, err
	})
}

func newSteerRevoke(env *caller.Env) *cobra.Command {
	var req localapi.RevokeRequest
	cmd := &cobra.Command{
		Use:   "revoke NAME -n NAMESPACE",
		Short: "Delete somebody's rule, with the right to",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) != 1 || req.Namespace == "" {
				return &localapi.Error{Code: localapi.CodeUsage, Message: "want one name of a rule and its namespace", Hint: "podnet steer list --all-owners -A"}
			}
			if req.Kube, err = env.Kube.Kube(env.Environ); err != nil {
				return exit.Usagef("%v", err)
			}
			req.Name = args[0]
			c, _ := session.Client(cmd)
			r, err := c.RevokeSteering(cmd.Context(), req)
			if err != nil {
				e := session.NotConnected(err)
				if e.Code == localapi.CodeNotConnected {
					e.Hint = fmt.Sprintf("podnet connect; or kubectl -n %s delete steeringrules -l podnet.dev/rule=%s", req.Namespace, req.Name)
				}
				return e
			}
			for _, n := range r.Rules {
				fmt.Fprintf(env.Notes(), "%s revoked\n", n)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&req.Namespace, "namespace", "n", "", "namespace of the rule")
	env.Kube.AddTo(cmd.Flags())
	return cmd
}
