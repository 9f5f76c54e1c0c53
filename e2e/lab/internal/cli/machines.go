package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/e2e/lab/internal/boot"
	"podnet.dev/e2e/lab/internal/machine"
	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/stun"
	"podnet.dev/e2e/lab/internal/topology"
)

func (a *app) exec() *cobra.Command {
	var user string
	var unprivileged bool
	cmd := &cobra.Command{
		Use:   "exec MACHINE [--user NAME] -- COMMAND...",
		Short: "Run a command on a machine",
		Long: `Run a command on a machine: node1, laptop, laptop2, router, or an edge such as
laptop-edge. The command takes this process's place, so its exit code, terminal
and signals are its own. --user says whose kubeconfig and home it has; it is
still root on the machine unless --unprivileged is given.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(args[0], user, unprivileged, args[1:]) },
	}
	cmd.Flags().StringVarP(&user, "user", "u", "admin", "run with this user's kubeconfig and home: admin, alice or bob")
	cmd.Flags().BoolVar(&unprivileged, "unprivileged", false, "run with the user's own Unix rights instead of root's")
	cmd.Flags().SetInterspersed(true)
	return cmd
}

func (a *app) shell() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "shell MACHINE", Short: "Open a shell on a machine", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(args[0], user, false, []string{"bash", "--norc", "-i"})
		},
	}
	cmd.Flags().StringVarP(&user, "user", "u", "alice", "with this user's kubeconfig and home: admin, alice or bob")
	return cmd
}

// run turns this process into argv on a machine.
func (a *app) run(name, userName string, unprivileged bool, argv []string) error {
	l, err := a.open()
	if err != nil {
		return err
	}
	user, err := machine.FindUser(userName)
	if err != nil {
		return err
	}
	place, err := l.Place(name)
	if err != nil {
		return err
	}
	env := os.Environ()
	for key, value := range a.variables(l.Record.Bin, name, user) {
		env = setVariable(env, key, value)
	}
	var as *machine.Credential
	if unprivileged {
		as = &machine.Credential{UID: user.UID, GID: user.UID}
	}
	return machine.Exec(place, as, env, argv)
}

// variables are the environment of a user on a machine.
func (a *app) variables(bin, on string, u machine.User) map[string]string {
	// kubectl, and podnet where this program is beside it.
	path := bin
	if self, err := os.Executable(); err == nil {
		path += ":" + filepath.Dir(self)
	}
	v := map[string]string{
		"PATH":             path + ":" + os.Getenv("PATH"),
		"PODNET_LAB_STATE": string(a.dir),
		"KUBECONFIG":       a.dir.Kubeconfig(u.Name),
		"PS1":              u.Name + "@" + on + ":\\w\\$ ",
	}
	if l, err := a.open(); err == nil {
		if m, err := l.Plan.Machine(on); err == nil && m.Kind == topology.Laptop {
			home := a.dir.Home(on, u.Name)
			v["HOME"], v["USER"], v["LOGNAME"] = home, u.Name, u.Name
			v["KUBECONFIG"] = filepath.Join(home, ".kube", "config")
			v["XDG_RUNTIME_DIR"] = machine.RuntimeDir(u)
			v["XDG_CONFIG_HOME"] = filepath.Join(home, ".config")
			v["XDG_CACHE_HOME"] = filepath.Join(home, ".cache")
			v["XDG_DATA_HOME"] = filepath.Join(home, ".local", "share")
			v["XDG_STATE_HOME"] = filepath.Join(home, ".local", "state")
		}
	}
	return v
}

func setVariable(env []string, key, value string) []string {
	for i, kv := range env {
		if strings.HasPrefix(kv, key+"=") {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

func (a *app) load() *cobra.Command {
	return &cobra.Command{
		Use: "load IMAGE.tar...", Short: "Give images to every node", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			for i := range args {
				if args[i], err = filepath.Abs(args[i]); err != nil {
					return err
				}
			}
			return l.Load(cmd.Context(), args)
		},
	}
}

func (a *app) grant() *cobra.Command {
	return &cobra.Command{
		Use: "grant", Short: "Let group dev (alice, bob) use podnet, once it is installed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			_, err = l.Kubectl(cmd.Context(), l.Cluster().Grant(), "apply", "--server-side", "-f", "-")
			return err
		},
	}
}

func (a *app) env() *cobra.Command {
	return &cobra.Command{
		Use: "env [MACHINE]", Short: "Print the lab's addresses and files as shell assignments", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if _, err := l.Plan.Machine(args[0]); err != nil {
					return err
				}
				return printVariables(cmd.OutOrStdout(), a.variables(l.Record.Bin, args[0], machine.Users[0]))
			}
			v := map[string]string{
				"PODNET_LAB_STATE":  string(a.dir),
				"PODNET_LAB_BIN":    l.Record.Bin,
				"PODNET_LAB_SERVER": l.Plan.Server(),
				"PODNET_LAB_AUDIT":  a.dir.Path("log", "audit.log"),
				"PODNET_LAB_DNS":    topology.Internet4.String(),
				"PODNET_LAB_STUN":   addresses(boot.STUNServers()[:len(topology.STUN4)]),
				"PODNET_LAB_STUN6":  addresses(boot.STUNServers()[len(topology.STUN4):]),
				"KUBECONFIG":        a.dir.Kubeconfig("admin"),
			}
			if p := l.Record.Options.GatewayPort; p != 0 {
				v["PODNET_LAB_GATEWAY_NODEPORT"] = fmt.Sprint(p)
			}
			for _, u := range machine.Users {
				v["PODNET_LAB_KUBECONFIG_"+strings.ToUpper(u.Name)] = a.dir.Kubeconfig(u.Name)
			}
			for _, m := range l.Plan.Machines {
				name := strings.ToUpper(m.Name)
				v["PODNET_LAB_"+name+"_ADDR4"], v["PODNET_LAB_"+name+"_ADDR6"] = m.Addr4.String(), m.Addr6.String()
				v["PODNET_LAB_"+name+"_PUBLIC4"] = m.Public4.String()
				v["PODNET_LAB_"+name+"_NETNS"] = m.NS()
			}
			return printVariables(cmd.OutOrStdout(), v)
		},
	}
}

func (a *app) stun() *cobra.Command {
	var port uint16
	cmd := &cobra.Command{
		Use: "stun MACHINE", Short: "Ask the lab's STUN servers how they see a machine", Args: cobra.ExactArgs(1),
		Long: `Ask the lab's STUN servers, one after the other from the same socket, how they
see a machine: a line for each, with the server and the address it sees.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			place, err := l.Place(args[0])
			if err != nil {
				return err
			}
			var s *net.UDPConn
			if err := netns.Do(place.NS, func() (err error) {
				s, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
				return err
			}); err != nil {
				return err
			}
			defer s.Close()
			for _, server := range boot.STUNServers() {
				seen, err := stun.Ask(s, server)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", server, seen)
			}
			return nil
		},
	}
	cmd.Flags().Uint16Var(&port, "port", 0, "ask from this port; 0: any")
	return cmd
}

// addresses are separated by commas.
func addresses(of []netip.AddrPort) string {
	var words []string
	for _, a := range of {
		words = append(words, a.String())
	}
	return strings.Join(words, ",")
}

func printVariables(w io.Writer, v map[string]string) error {
	var lines []string
	for key, value := range v {
		lines = append(lines, key+"='"+strings.ReplaceAll(value, "'", `'\''`)+"'")
	}
	sort.Strings(lines)
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say what runs; fails unless all of it does", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			all, err := a.dir.Procs().All()
			if err != nil {
				return err
			}
			for _, p := range all {
				state := "ended"
				if p.Alive() {
					state = fmt.Sprintf("runs as %d", p.PID)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-26s %s\n", p.Name, state)
			}
			if err := printTraffic(cmd.OutOrStdout(), l); err != nil {
				return err
			}
			for _, name := range topology.Clusters {
				if _, err := boot.Open(a.dir.Cluster(name), a.report); err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%-26s a cluster: see \"lab status --cluster %[1]s\"\n", name)
				}
			}
			if !l.Record.Ready {
				return errors.New("the lab's boot did not end")
			}
			return l.Healthy(cmd.Context())
		},
	}
}

// printTraffic tells what the router was told to do, unless that is nothing.
func printTraffic(w io.Writer, l *boot.Lab) error {
	s, err := l.Traffic()
	if err != nil {
		return err
	}
	content, err := json.Marshal(s)
	if err != nil || string(content) == "{}" {
		return err
	}
	_, err = fmt.Fprintf(w, "%-26s %s\n", "router", content)
	return err
}
