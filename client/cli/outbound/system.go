package outbound

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

// system runs the command in this machine's network, as a session of the daemon has made
// it: the one that there is, or one for as long as the command runs.
func (x *execution) system(cmd *cobra.Command) error {
	ctx := cmd.Context()
	c, socket := session.Client(cmd)
	s, err := session.Status(ctx, c)
	if err != nil {
		return err
	}
	name, err := session.Meant(s, session.NameOf(cmd), x.req.Kube)
	if err != nil {
		return err
	}
	c = c.For(name)
	used, err := session.InUse(s, name)
	switch {
	case err != nil:
		return err
	case !used:
		return x.during(ctx, x.held(c, socket), here{}, x.command)
	case x.req.As != "":
		return x.during(ctx, x.sending(c), here{}, x.command)
	}
	return x.carryOut(ctx, here{}, x.command, false, nil, "")
}

// held is a session of the daemon that is there for this command.
func (x *execution) held(c *localapi.Client, socket string) lasting {
	x.req.Hold = true
	name := ""
	return lasting{
		begin: func(ctx context.Context, ready func()) error {
			_, err := session.Connect(ctx, x.env.Env, c, socket, x.req, func(e localapi.Event) {
				if x.told.Event(e); e.Type == localapi.EventReady {
					name = e.Connection
					ready()
				}
			})
			return err
		},
		end: func(ctx context.Context) error {
			r, err := c.For(name).LetGo(ctx)
			if err == nil && r.Exits {
				session.AwaitExit(ctx, c, r.PID)
			}
			return err
		},
		lost: "nothing is connected any more",
	}
}

// sending is that the session that there is sends from a pod. When that ends before the
// command, what the command sends would leave from the gateway, which nobody has asked for.
func (x *execution) sending(c *localapi.Client) lasting {
	req := localapi.AsRequest{Kube: x.req.Kube, Target: x.req.As}
	if len(x.req.Namespaces) > 0 {
		req.Namespace = x.req.Namespaces[0]
	}
	start, rule := time.Now(), ""
	return lasting{
		begin: func(ctx context.Context, ready func()) error {
			return c.As(ctx, req, func(e localapi.SteerEvent) {
				if x.told.Steer(e, start); e.Type == localapi.SteerReady {
					rule = e.Rule.Name
					ready()
				}
			})
		},
		end: func(ctx context.Context) error {
			_, err := c.StopSteering(ctx, rule)
			return err
		},
		lost: "nothing leaves from " + req.Target + " any more", fatal: true,
	}
}
