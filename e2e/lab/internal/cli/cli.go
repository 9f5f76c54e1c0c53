// Package cli is the lab's command line.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/boot"
	"podnet.dev/e2e/lab/internal/machine"
	"podnet.dev/e2e/lab/internal/report"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

// Main runs a command line and gives its exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	if errors.Is(err, exec.ErrNotFound) { // as a shell says it
		return 127
	}
	return 1
}

// app is what the verbs share.
type app struct {
	dir    state.Dir
	report *report.Report
}

func (a *app) open() (*boot.Lab, error) { return boot.Open(a.dir, a.report) }

// locked lets only one command at a time change the lab.
func (a *app) locked(do func() error) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces and mounts: run it as root")
	}
	unlock, err := a.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

func command() *cobra.Command {
	a := &app{dir: state.Default(), report: report.New(os.Stderr)}
	root := &cobra.Command{
		Use:   "lab",
		Short: "A real Kubernetes, two laptops and a router on this computer",
		Long: `A real Kubernetes, two laptops and a router on this computer, each in network
and mount namespaces of its own. Nothing leaves the computer: the router has no
way out. Everything is in /var/lib/podnet-lab (or $PODNET_LAB_STATE); what was
built is in ~/.cache/podnet-lab.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(a.build(), a.up(), a.down(), a.cluster(), a.stun())
	root.AddCommand(a.ofCluster(a.status(), a.exec(), a.shell(), a.load(), a.env(), a.grant(), a.stop(), a.start())...)
	root.AddCommand(a.traffic()...)
	root.AddCommand(hidden()...)
	return root
}

func (a *app) build() *cobra.Command {
	return &cobra.Command{
		Use: "build", Short: "Install and build what the lab runs, into the cache", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := assets.Make(cmd.Context(), a.report)
			if err == nil {
				a.report.Say("everything the lab needs is built")
			}
			return err
		},
	}
}

func (a *app) up() *cobra.Command {
	var o topology.Options
	cmd := &cobra.Command{
		Use: "up", Short: "Boot the lab, unless it is up", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.locked(func() error {
				set, err := assets.Make(cmd.Context(), a.report)
				if err != nil {
					return err
				}
				return boot.Up(cmd.Context(), a.dir, o, set, a.report)
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 1, "how many nodes the cluster has")
	f.BoolVar(&o.DualStack, "dual-stack", true, "give pods and Services IPv6 addresses as well")
	f.BoolVar(&o.Resolved, "resolved", false, "run systemd-resolved on the laptops")
	f.IntVar(&o.GatewayPort, "gateway-nodeport", 0, "the `PORT` that podnet's gateway is to get on the nodes; told by \"lab env\"")
	f.Lookup("gateway-nodeport").NoOptDefVal = "31820"
	return cmd
}

func (a *app) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Take the lab down, whatever state it is in", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.locked(func() error { return boot.Down(cmd.Context(), a.dir, a.report) })
		},
	}
}

// hidden are the verbs by which the lab starts itself.
func hidden() []*cobra.Command {
	return []*cobra.Command{{
		Use: boot.VerbEnter, Hidden: true, DisableFlagParsing: true, Args: cobra.MinimumNArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			holder, err := strconv.Atoi(args[1])
			if err != nil {
				return err
			}
			return machine.Exec(machine.Place{NS: args[0], Holder: holder}, nil, os.Environ(), args[2:])
		},
	}, {
		Use: boot.VerbHold, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return boot.Hold(state.Default(), args[0]) },
	}, {
		Use: boot.VerbWire, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return boot.RunWire(cmd.Context(), state.Default(), args[0])
		},
	}, {
		Use: boot.VerbSTUN, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return boot.RunSTUN(cmd.Context()) },
	}}
}
