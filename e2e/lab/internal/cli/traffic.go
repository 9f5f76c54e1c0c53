package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/e2e/lab/internal/boot"
	"podnet.dev/e2e/lab/internal/router"
	"podnet.dev/e2e/lab/internal/topology"
	"podnet.dev/internal/wire"
)

// traffic are the verbs that change what happens between the machines.
func (a *app) traffic() []*cobra.Command {
	return []*cobra.Command{a.cut(), a.heal(), a.wire(), a.nat(), a.dropUDP(), a.link(), a.move()}
}

// onLab runs a change of the lab that is up, one at a time.
func (a *app) onLab(do func(*boot.Lab) error) error {
	return a.locked(func() error {
		l, err := a.open()
		if err != nil {
			return err
		}
		return do(l)
	})
}

// onMachine is onLab for the machine of that name.
func (a *app) onMachine(name string, do func(*boot.Lab, topology.Machine) error) error {
	return a.onLab(func(l *boot.Lab) error {
		m, err := l.Plan.Machine(name)
		if err != nil {
			return err
		}
		return do(l, m)
	})
}

// pair is a change that concerns two machines, or one and the router.
func (a *app) pair(ctx context.Context, args []string, change func(*router.State, string, string)) error {
	return a.onLab(func(l *boot.Lab) error {
		for _, name := range args {
			if _, err := l.Plan.Machine(name); err != nil && name != string(topology.Router) {
				return err
			}
		}
		if args[0] == args[1] {
			return fmt.Errorf("%s and %s are the same machine", args[0], args[1])
		}
		return l.ChangeTraffic(ctx, func(s *router.State) { change(s, args[0], args[1]) })
	})
}

func (a *app) cut() *cobra.Command {
	return &cobra.Command{
		Use: "cut A B", Short: "Drop everything between two machines; B may be router, for all", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pair(cmd.Context(), args, (*router.State).Cut)
		},
	}
}

func (a *app) heal() *cobra.Command {
	return &cobra.Command{
		Use: "heal [A B]", Short: "Undo cut; without machines, undo every cut, wire, NAT and filter",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return errors.New("heal takes two machines, or none")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return a.pair(cmd.Context(), args, (*router.State).Heal)
			}
			return a.onLab(func(l *boot.Lab) error {
				return l.ChangeTraffic(cmd.Context(), (*router.State).Calm)
			})
		},
	}
}

func (a *app) wire() *cobra.Command {
	var c wire.Config
	var loss, rate string
	var clear bool
	cmd := &cobra.Command{
		Use:   "wire MACHINE",
		Short: "Give a machine a bad line: delay, loss, rate, small packets",
		Long: `Give a machine a bad line to the router. Each call says all of it: what is not
named is perfect. The delay is one way, so a round trip takes twice as long.`,
		Example: "  lab wire laptop --delay 75ms --loss 2% --rate 50mbit\n  lab wire laptop --clear",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if c.Loss, err = parseShare(loss); err != nil {
				return err
			}
			if c.Rate, err = parseRate(rate); err != nil {
				return err
			}
			if err := c.Check(); err != nil {
				return err
			}
			if !clear && c == (wire.Config{}) {
				return errors.New("say what the line is like, or --clear")
			}
			return a.onMachine(args[0], func(l *boot.Lab, m topology.Machine) error {
				return l.ChangeTraffic(cmd.Context(), func(s *router.State) {
					if clear {
						s.SetWire(m.Name, nil)
					} else {
						s.SetWire(m.Name, &c)
					}
				})
			})
		},
	}
	f := cmd.Flags()
	f.DurationVar(&c.Delay, "delay", 0, "delay each way")
	f.StringVar(&loss, "loss", "0", "share of packets lost each way: 0.5% or 0.005")
	f.StringVar(&rate, "rate", "0", "bits per second each way: 50mbit, 1gbit; 0: no limit")
	f.IntVar(&c.MTU, "mtu", 0, "drop longer packets without a word, `BYTES`")
	f.Int64Var(&c.Queue, "queue", 0, "what waits for the rate at most, `BYTES`")
	f.BoolVar(&clear, "clear", false, "a perfect line again")
	return cmd
}

func (a *app) nat() *cobra.Command {
	var symmetric, sequential, off, rebind bool
	cmd := &cobra.Command{
		Use:   "nat MACHINE",
		Short: "Put a machine behind a NAT and a firewall",
		Long: `Put a machine behind a NAT for IPv4, and a firewall for IPv4 and IPv6 that lets
in only answers. A node behind one still shows the API server (TCP 6443), and
nodes still see each other. Without --symmetric and --sequential the NAT gives a
socket one port towards all destinations: its own, and after --rebind another.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onMachine(args[0], func(l *boot.Lab, m topology.Machine) error {
				if rebind {
					return l.Rebind(cmd.Context(), m)
				}
				kind := router.Plain
				switch {
				case off:
					kind = ""
				case symmetric:
					kind = router.Symmetric
				case sequential:
					kind = router.Sequential
				}
				return l.SetNAT(cmd.Context(), m, kind)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&symmetric, "symmetric", false, "take another random port for every destination")
	f.BoolVar(&sequential, "sequential", false, "take the next port for every destination")
	f.BoolVar(&off, "off", false, "route plainly again")
	f.BoolVar(&rebind, "rebind", false, "make the NAT there is forget its mappings and take other ports")
	cmd.MarkFlagsMutuallyExclusive("symmetric", "sequential", "off", "rebind")
	return cmd
}

func (a *app) dropUDP() *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: "drop-udp MACHINE", Short: "Drop a machine's UDP, but for the DNS of the lab's internet", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onMachine(args[0], func(l *boot.Lab, m topology.Machine) error {
				return l.ChangeTraffic(cmd.Context(), func(s *router.State) { s.SetDropUDP(m.Name, !off) })
			})
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "let it pass again")
	return cmd
}

func (a *app) link() *cobra.Command {
	return &cobra.Command{
		Use: "link MACHINE up|down", Short: "Take a machine's own link down, or up again", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] != "up" && args[1] != "down" {
				return fmt.Errorf("%q is neither up nor down", args[1])
			}
			return a.onMachine(args[0], func(l *boot.Lab, m topology.Machine) error {
				return l.Link(cmd.Context(), m, args[1] == "up")
			})
		},
	}
}

func (a *app) move() *cobra.Command {
	return &cobra.Command{
		Use: "move LAPTOP NUMBER|PREFIX", Short: "Take a laptop to another network, as to another Wi-Fi; 0 is the first", Args: cobra.ExactArgs(2),
		Long: `Take a laptop to another network: one of the lab's, by its number, or a home with
that IPv4 network behind a NAT, which may be one that pods or Services have too.
The home's router is its first address, the laptop the second.`,
		Example: "  lab move laptop 3\n  lab move laptop 10.244.0.0/16\n  lab move laptop 0",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onLab(func(l *boot.Lab) error { return l.Move(cmd.Context(), args[0], args[1]) })
		},
	}
}

func (a *app) stop() *cobra.Command {
	var kill bool
	cmd := &cobra.Command{
		Use: "stop COMPONENT", Short: "Stop a component, such as apiserver or kubelet-node1", Args: cobra.ExactArgs(1),
		Long: `Stop a component. An API server that has time to say goodbye takes itself off
the Service "kubernetes", and nodes notice its return late; one that is killed
is back at once.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onLab(func(l *boot.Lab) error { return l.Stop(cmd.Context(), args[0], kill) })
		},
	}
	cmd.Flags().BoolVar(&kill, "kill", false, "give it no time, as a crash does")
	return cmd
}

func (a *app) start() *cobra.Command {
	return &cobra.Command{
		Use: "start COMPONENT", Short: "Start a stopped component again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onLab(func(l *boot.Lab) error { return l.Start(cmd.Context(), args[0]) })
		},
	}
}

// parseShare reads 0.5% or 0.005.
func parseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	x, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a share such as 0.5%% or 0.005", s)
	}
	if percent {
		x /= 100
	}
	return x, nil
}

// parseRate reads bits per second, with tc(8)'s decimal units.
func parseRate(s string) (int64, error) {
	unit := 1.0
	number := strings.ToLower(s)
	for _, u := range []struct {
		suffix string
		bits   float64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}} {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = n, u.bits
			break
		}
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || x < 0 || x*unit > 1e12 {
		return 0, fmt.Errorf("%q is not a rate such as 50mbit or 1gbit", s)
	}
	return int64(x * unit), nil
}
