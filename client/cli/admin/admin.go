package admin

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
	"podnet.dev/internal/overview"
)

// topForms are those of admin top.
var topForms = []string{answer.Table, answer.Wide, answer.JSON, answer.YAML}

func newAdmin(env *setting) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "See who uses podnet in a cluster, and throw people out",
		Long: `What administrators of a cluster do, with their own rights in it:

  podnet admin top -w           who is connected, from where, and how much they move
  podnet admin revoke alice     end all sessions of alice

Who may connect is for kubectl to say, and for podnet install --help.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exit.Usagef("unknown command %q of podnet admin", args[0])
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newTop(env), newRevoke(env))
	return cmd
}

func newTop(env *setting) *cobra.Command {
	var namespace, output string
	var follow bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show who is connected, from where, and how much they move",
		Long: `Show all devices at the gateways: whose they are, where they come from and by
which path, how much they move, how many flows they have open, and which steering
rules. With --watch again and again, those that move most first.

It takes the right to exec into the gateways' pods, as the Role podnet-top has it,
and asks them nothing but this.`,
		Args: flags.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return exit.Usagef("--every %v: want 100ms at least", every)
			}
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return exit.Usagef("%v", err)
			}
			pause := every
			if !follow {
				pause = 0
			}
			t := &topView{env: env, output: output, follow: follow, screen: follow && !answer.ForPrograms(output) && env.Interactive(env.Out)}
			if t.screen {
				fmt.Fprint(env.Out, "\x1b[2J")
			}
			err = env.Admin.Top(cmd.Context(), kube, namespace, pause, t.show)
			if follow {
				return exit.UnlessInterrupted(cmd.Context(), err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "watch", "w", false, "show it again and again")
	f.DurationVar(&every, "every", 2*time.Second, "how often with --watch")
	f.StringVar(&namespace, "gateway-namespace", "podnet-system", "namespace that podnet is installed in")
	answer.Flag(f, &output, topForms, "")
	env.Kube.AddTo(f)
	return cmd
}

// topList is what top prints for programs.
type topList struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Gateways   []overview.Gateway `json:"gateways"`
}

// topView prints overviews.
type topView struct {
	env            *setting
	output         string
	follow, screen bool
	last           map[string]topRow // by pod and peer
	at             time.Time
}

// topRow is a device at a gateway.
type topRow struct {
	overview.Peer
	pod      string
	here     bool
	up, down float64 // bytes a second since the last look; less than 0 is unknown
}

func (t *topView) show(all []overview.Gateway) error {
	if answer.ForPrograms(t.output) {
		l := topList{localapi.APIVersion, "Top", all}
		if t.follow {
			return answer.PrintNext(t.env.Out, t.output, l)
		}
		return answer.Print(t.env.Out, t.output, l)
	}
	var b bytes.Buffer
	rows := t.rows(all, time.Now())
	printTop(words.Shown(&b), all, rows, t.output == answer.Wide)
	text := b.String()
	if t.screen {
		text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
	}
	_, err := io.WriteString(t.env.Out, text)
	return err
}

// rows are the devices in the order in which they are shown: those that are with a
// gateway first, and of them those that move most. Of a device that several gateways
// admit those rows are left out that say nothing.
func (t *topView) rows(all []overview.Gateway, now time.Time) []topRow {
	var rows []topRow
	next := map[string]topRow{}
	anywhere := map[string]bool{}
	for _, g := range all {
		for _, p := range g.Peers {
			r := topRow{Peer: p, pod: g.Pod, here: p.Here(g.Time), up: -1, down: -1}
			key := g.Pod + "/" + p.Name
			if old, ok := t.last[key]; ok && now.After(t.at) && p.BytesUp >= old.BytesUp && p.BytesDown >= old.BytesDown {
				seconds := now.Sub(t.at).Seconds()
				r.up, r.down = float64(p.BytesUp-old.BytesUp)/seconds, float64(p.BytesDown-old.BytesDown)/seconds
			}
			next[key] = r
			anywhere[p.Name] = anywhere[p.Name] || r.here
			rows = append(rows, r)
		}
	}
	t.last, t.at = next, now
	seen := map[string]bool{}
	rows = slices.DeleteFunc(rows, func(r topRow) bool {
		idle := !r.here && (anywhere[r.Name] || seen[r.Name])
		seen[r.Name] = true
		return idle
	})
	slices.SortStableFunc(rows, func(a, b topRow) int {
		return cmp.Or(boolOrder(b.here, a.here), cmp.Compare(b.up+b.down, a.up+a.down),
			cmp.Compare(b.BytesUp+b.BytesDown, a.BytesUp+a.BytesDown), cmp.Compare(a.User, b.User), cmp.Compare(a.Name, b.Name))
	})
	return rows
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func printTop(w io.Writer, all []overview.Gateway, rows []topRow, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	here := map[string]int{}
	for _, r := range rows {
		if r.here {
			here[r.pod]++
		}
	}
	fmt.Fprintln(t, "GATEWAY\tVERSION\tDEVICES\tAGENTS\tMEMORY\tNOTES")
	for _, g := range all {
		fmt.Fprintln(t, strings.Join([]string{g.Pod, answer.OrDash(g.Version), strconv.Itoa(here[g.Pod]), strconv.Itoa(g.Agents), memoryText(g), answer.OrDash(notesOf(g))}, "\t"))
	}
	_ = t.Flush() // to a terminal or a pipe that is gone: nobody to tell
	fmt.Fprintln(w)
	if len(rows) == 0 {
		fmt.Fprintln(w, "nobody is connected")
		return
	}
	columns := []string{"USER", "DEVICE", "FROM", "PATH", "UP", "DOWN", "UP/S", "DOWN/S", "FLOWS", "RULES", "NAMESPACES"}
	if wide {
		columns = append(columns, "PEER", "ADDRESS", "GATEWAY", "HANDSHAKE", "LIMITS")
	}
	fmt.Fprintln(t, strings.Join(columns, "\t"))
	for _, r := range rows {
		path := answer.OrDash(r.Path)
		if !r.here {
			path = "away"
		}
		cells := []string{r.User, answer.OrDash(r.Device), answer.OrDash(hostOf(r.From)), path, words.Size(int64(r.BytesUp)), words.Size(int64(r.BytesDown)), perSecond(r.up), perSecond(r.down),
			strconv.Itoa(r.Connections + r.Datagrams), answer.OrDash(strings.Join(r.Rules, ",")), namespacesOf(r.Peer)}
		if wide {
			address := ""
			if len(r.Addresses) > 0 {
				address = r.Addresses[len(r.Addresses)-1] // the one of IPv4, where there is one
			}
			cells = append(cells, r.Name, answer.OrDash(address), r.pod, handshakeOf(r, all), answer.OrDash(strings.Join(r.Limits, ",")))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_ = t.Flush()
}

func memoryText(g overview.Gateway) string {
	if g.MemoryBudget == 0 {
		return words.Size(int64(g.MemoryUsed))
	}
	return fmt.Sprintf("%s of %s", words.Size(int64(g.MemoryUsed)), words.Size(int64(g.MemoryBudget)))
}

func notesOf(g overview.Gateway) string {
	var all []string
	if g.Leader {
		all = append(all, "leads")
	}
	if g.Frozen {
		all = append(all, "leases are frozen")
	}
	if !g.PoliciesHold {
		all = append(all, "the admission policies do not hold")
	}
	return strings.Join(all, ", ")
}

func namespacesOf(p overview.Peer) string {
	if p.Cluster {
		return "all"
	}
	return answer.OrDash(strings.Join(p.Namespaces, ","))
}

// hostOf is an endpoint without its port, which tells nobody anything.
func hostOf(endpoint string) string {
	if i := strings.LastIndexByte(endpoint, ':'); i > 0 {
		return strings.Trim(endpoint[:i], "[]")
	}
	return endpoint
}

func handshakeOf(r topRow, all []overview.Gateway) string {
	i := slices.IndexFunc(all, func(g overview.Gateway) bool { return g.Pod == r.pod })
	if r.LastHandshake == nil || i < 0 {
		return "-"
	}
	return all[i].Time.Sub(*r.LastHandshake).Round(time.Second).String()
}

func perSecond(bytes float64) string {
	if bytes < 0 {
		return "-"
	}
	return words.Size(int64(bytes))
}

func newRevoke(env *setting) *cobra.Command {
	var namespace, output string
	cmd := &cobra.Command{
		Use:   "revoke USER|PEER",
		Short: "End all sessions of a user, or one of them by its Peer's name",
		Long: `End all sessions of a user, or one session by the name of its Peer, within two
seconds: their tunnels, flows, steering rules and exposures. It takes the rights
of podnet-admin.

Who still has permission to connect can do so again. First take the permission
away (kubectl delete rolebinding), then revoke.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return exit.Usagef("whose sessions? podnet admin revoke USER or PEER; podnet admin top -o wide lists them")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			kube, err := env.Kube.Kube(env.Environ)
			if err != nil {
				return exit.Usagef("%v", err)
			}
			ended, err := env.Admin.Revoke(cmd.Context(), kube, namespace, args[0])
			if perr := printRevoked(env, output, ended); perr != nil {
				return cmp.Or(err, perr)
			}
			if err != nil {
				return err
			}
			if len(ended) == 0 {
				return &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("nobody called %q is connected", args[0]),
					Hint: "kubectl -n " + namespace + " get peers lists users and Peers"}
			}
			fmt.Fprintf(env.Notes(), "hint: who may still connect can do so again: kubectl -n %s get rolebindings\n", namespace)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&namespace, "gateway-namespace", "podnet-system", "namespace that podnet is installed in")
	answer.Flag(f, &output, []string{answer.Table, answer.JSON, answer.YAML, answer.Name}, "")
	env.Kube.AddTo(f)
	return cmd
}

// revokedList is what revoke prints for programs.
type revokedList struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Revoked    []Revoked `json:"revoked"`
}

func printRevoked(env *setting, output string, ended []Revoked) error {
	switch {
	case answer.ForPrograms(output):
		if ended == nil {
			ended = []Revoked{}
		}
		return answer.Print(env.Out, output, revokedList{localapi.APIVersion, "Revoked", ended})
	case output == answer.Name:
		return answer.Names(env.Out, ended, func(r Revoked) string { return r.Peer })
	}
	for _, r := range ended {
		if _, err := fmt.Fprintf(words.Shown(env.Out), "revoked %s of %s on %s\n", r.Peer, r.User, answer.OrDash(r.Device)); err != nil {
			return err
		}
	}
	return nil
}
