// Package complete gives shells the words that a user may type next.
package complete

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/progress"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/config"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// completionTime is how long a shell waits for words at most. Somebody has pressed a
// key and sees nothing meanwhile.
const completionTime = 1500 * time.Millisecond

// Cluster finds words that the user's kubeconfig and the cluster behind it know.
type Cluster interface {
	// Contexts lists what the kubeconfig offers. It makes no request.
	Contexts(localapi.Kube) ([]localapi.Context, error)
	// Names lists the names of a resource, as "services" or "deployments", in a
	// namespace, "" for the context's.
	Names(ctx context.Context, kube localapi.Kube, resource, namespace string) ([]string, error)
}

// finder finds what may stand where the cursor is.
type finder func(q *question) []string

// question is what a shell asks.
type question struct {
	ctx     context.Context
	env     *caller.Env
	cluster Cluster
	cmd     *cobra.Command
	args    []string // before the word that is typed
	typed   string
	// open says that more is typed after a word, without a space.
	open bool
}

// Register has shells complete every flag and argument whose words can be known.
// What goes wrong is no word: nobody wants an error in the middle of a command line.
func Register(root *cobra.Command, env *caller.Env, cluster Cluster) {
	flags.Walk(root, func(c *cobra.Command) {
		for name, find := range flagWords {
			if c.Flag(name) != nil {
				// The error says that it has words already: kubectl's flags are the same
				// in all commands, and so are their words.
				_ = c.RegisterFlagCompletionFunc(name, completing(env, cluster, find))
			}
		}
		if f := c.Flags().Lookup("output"); f != nil {
			if forms := answer.FormsOf(f); forms != nil {
				words := slices.DeleteFunc(slices.Clone(forms), func(f string) bool { return strings.Contains(f, "=") }) // which is no word
				_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
			}
		}
		find := argumentWords[strings.TrimPrefix(c.CommandPath(), root.CommandPath()+" ")]
		switch {
		case c.ValidArgsFunction != nil || c.Name() == "exec" || c.Name() == "proxy": // the words of another command
		case find == nil:
			c.ValidArgsFunction = cobra.NoFileCompletions
		default:
			c.ValidArgsFunction = completing(env, cluster, find)
		}
	})
	_ = root.RegisterFlagCompletionFunc("progress", cobra.FixedCompletions(progress.Modes, cobra.ShellCompDirectiveNoFileComp))
}

// flagWords are the words of flags, which mean the same wherever they are.
var flagWords = map[string]finder{
	"context":           contexts(func(c localapi.Context) string { return c.Name }),
	"cluster":           contexts(func(c localapi.Context) string { return c.Cluster }),
	"user":              contexts(func(c localapi.Context) string { return c.User }),
	"namespace":         (*question).namespaces,
	"gateway-namespace": (*question).namespaces,
	"metrics-from":      (*question).namespaces,
	"session":           (*question).sessions,
	"as":                (*question).targets,
	"path":              fixed("auto", "udp", "apiserver"),
	"device":            fixed(localapi.Devices...),
	"addresses":         fixed("auto", "direct", "virtual"),
	"on-error":          fixed(localapi.OnErrorFail, localapi.OnErrorApp),
	"client-address":    fixed("proxy", "header"),
	"via":               fixed(localapi.ViaService),
	"udp-service":       fixed("NodePort", "LoadBalancer"),
	"image-pull-policy": fixed("IfNotPresent", "Always", "Never"),
	"log-level":         fixed("debug", "info", "warn", "error"),
}

// argumentWords are the words of arguments, by the command less "podnet".
var argumentWords = map[string]finder{
	"connect":       first((*question).profiles),
	"disconnect":    first((*question).sessions),
	"primary":       first((*question).sessions),
	"namespace":     first((*question).openNamespaces),
	"steer":         (*question).steering,
	"steer stop":    (*question).rules,
	"steer inspect": first((*question).rules),
	"steer revoke":  first((*question).everybodysRules),
	"expose stop":   (*question).exposures,
	"export revoke": (*question).exports,
	"admin revoke":  first((*question).peers),
	"dns query":     (*question).query,

	"profile remove": first((*question).profiles),
}

// completing is what cobra calls for words.
func completing(env *caller.Env, cluster Cluster, find finder) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		_ = env.Configure(cmd, nil)
		_ = env.Preset(cmd.Flags())
		parent := cmd.Context()
		if parent == nil {
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, completionTime)
		defer cancel()
		q := &question{ctx: ctx, env: env, cluster: cluster, cmd: cmd, args: args, typed: typed}
		found := make(chan []string, 1)
		go func() { found <- find(q) }() // what brings credentials heeds no context
		select {
		case all := <-found:
			how := cobra.ShellCompDirectiveNoFileComp
			if q.open {
				how |= cobra.ShellCompDirectiveNoSpace
			}
			return fitting(all, typed), how
		case <-ctx.Done():
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// fitting are the words that begin as typed, each once and sorted.
func fitting(all []string, typed string) []string {
	var out []string
	for _, w := range all {
		if w != "" && strings.HasPrefix(w, typed) {
			out = append(out, w)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// fixed are words that are always the same.
func fixed(all ...string) finder { return func(*question) []string { return all } }

// first are the words of a command's only argument.
func first(find finder) finder {
	return func(q *question) []string {
		if len(q.args) > 0 {
			return nil
		}
		return find(q)
	}
}

// names are those of some things; none where there was an error.
func names[T any](all []T, err error, name func(T) string) []string {
	if err != nil {
		return nil
	}
	var out []string
	for _, v := range all {
		out = append(out, name(v))
	}
	return out
}

// daemon is the daemon's client.
func (q *question) daemon() *localapi.Client {
	c, _ := session.Client(q.cmd)
	return c
}

// kube is the kubeconfig that the command line means.
func (q *question) kube() (localapi.Kube, bool) {
	kube, err := q.env.Kube.Kube(q.env.Environ)
	return kube, err == nil && q.cluster != nil
}

// connected is the session that knows the cluster which the command line means, if
// there is one: connect means its kubeconfig's, and so does who names a cluster.
func (q *question) connected() bool {
	s, err := q.daemon().Status(q.ctx)
	if err != nil || q.cmd.Name() == "connect" {
		return false
	}
	kube, _ := q.kube()
	for _, flag := range []string{"kubeconfig", "context", "cluster", "server"} {
		if len(kube.Flags[flag]) > 0 {
			return false
		}
	}
	c, err := session.Of(s, session.NameOf(q.cmd))
	return err == nil && c.Since != nil
}

// namespace is that of --namespace, the first where there are several.
func (q *question) namespace() string {
	f := q.cmd.Flags().Lookup("namespace")
	if f == nil {
		return ""
	}
	text, _, _ := strings.Cut(strings.Trim(f.Value.String(), "[]"), ",")
	return text
}

// ofCluster are the names of a resource, as the user's credentials may list them.
func (q *question) ofCluster(resource, namespace string) []string {
	kube, ok := q.kube()
	if !ok {
		return nil
	}
	all, err := q.cluster.Names(q.ctx, kube, resource, namespace)
	return names(all, err, func(s string) string { return s })
}

// peers are the names of everybody's Peers.
func (q *question) peers() []string {
	return q.ofCluster("peers", q.cmd.Flag("gateway-namespace").Value.String())
}

func contexts(name func(localapi.Context) string) finder {
	return func(q *question) []string {
		kube, ok := q.kube()
		if !ok {
			return nil
		}
		all, err := q.cluster.Contexts(kube)
		return names(all, err, name)
	}
}

func (q *question) namespaces() []string {
	if q.connected() {
		if all, err := q.daemon().Namespaces(q.ctx); err == nil {
			return all
		}
	}
	if all := q.ofCluster("namespaces", ""); len(all) > 0 {
		return all
	}
	return contexts(func(c localapi.Context) string { return c.Namespace })(q) // of who may not list them
}

// openNamespaces are those whose names may need no suffix.
func (q *question) openNamespaces() []string {
	s, err := q.daemon().Status(q.ctx)
	if err != nil {
		return nil
	}
	c, err := session.Of(s, session.NameOf(q.cmd))
	if err == nil && c.AllNamespaces {
		return q.namespaces()
	}
	return c.Namespaces
}

func (q *question) sessions() []string {
	s, err := q.daemon().Status(q.ctx)
	return names(s.Connections, err, func(c localapi.Connection) string { return c.Name })
}

func (q *question) profiles() []string {
	c, err := q.env.LoadConfig(q.cmd.Root())
	return names(c.Profiles, err, func(p config.Profile) string { return p.Name })
}

func (q *question) rules() []string {
	l, err := q.daemon().Steered(q.ctx, false, "")
	return names(l.Rules, err, func(r localapi.SteerRule) string { return r.Name })
}

func (q *question) everybodysRules() []string {
	l, err := q.daemon().Steered(q.ctx, true, q.namespace())
	return names(l.Rules, err, func(r localapi.SteerRule) string { return r.Name })
}

func (q *question) exposures() []string {
	l, err := q.daemon().Exposed(q.ctx, false, "")
	return names(l.Exposures, err, func(e localapi.Exposure) string { return e.Name })
}

func (q *question) exports() []string {
	s, err := q.daemon().Status(q.ctx)
	return names(s.Exports, err, func(e localapi.Export) string { return e.Device })
}

// services are the Services of a namespace, "" for the one whose names need no suffix.
func (q *question) services(namespace string) []localapi.Service {
	if q.connected() {
		if all, err := q.daemon().Services(q.ctx, namespace); err == nil {
			return all
		}
	}
	var all []localapi.Service
	for _, name := range q.ofCluster("services", namespace) {
		all = append(all, localapi.Service{Namespace: namespace, Name: name})
	}
	return all
}

// kinds are those of a steered target, by the resource that has their names.
var kinds = map[string]string{
	"svc/": "services", "deploy/": "deployments", "sts/": "statefulsets", "ds/": "daemonsets", "rs/": "replicasets", "job/": "jobs", "pod/": "pods",
}

// targets are KIND/NAME.
func (q *question) targets() []string {
	var all []string
	if q.cmd.Name() == "expose" {
		return nil // its --as is a name to give
	}
	for kind, resource := range kinds {
		if !strings.HasPrefix(q.typed, kind) {
			all = append(all, kind)
			continue
		}
		if kind == "svc/" {
			for _, s := range q.services(q.namespace()) {
				all = append(all, kind+s.Name)
			}
			return all
		}
		return names(q.ofCluster(resource, q.namespace()), nil, func(name string) string { return kind + name })
	}
	q.open = true
	return all
}

// steering are the words of steer: a target, and then ports of it, which only a
// Service tells.
func (q *question) steering() []string {
	if len(q.args) == 0 {
		return q.targets()
	}
	name, ok := strings.CutPrefix(q.args[0], "svc/")
	if !ok {
		return nil
	}
	var all []string
	for _, s := range q.services(q.namespace()) {
		for _, p := range s.Ports {
			if s.Name == name && p.Protocol != "UDP" {
				all = append(all, p.Name, strconv.Itoa(int(p.Port)))
			}
		}
	}
	q.open = true // for the colon and the local port
	return all
}

// recordTypes are the types that people ask for.
var recordTypes = []string{"A", "AAAA", "CNAME", "PTR", "SRV", "TXT"}

// query are the words of dns query: a Service's name, and then a type.
func (q *question) query() []string {
	switch len(q.args) {
	case 0:
		return names(q.services(""), nil, func(s localapi.Service) string { return s.Name + "." + s.Namespace })
	case 1:
		return recordTypes
	}
	return nil
}

// Command prints what has a shell complete podnet's words.
func Command() *cobra.Command {
	shells := map[string]func(*cobra.Command, io.Writer) error{
		"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh":        (*cobra.Command).GenZshCompletion,
		"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
	}
	all := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print what has a shell complete podnet's commands and names",
		Long: `Print a script for a shell: it completes podnet's commands and flags, and the
contexts of the kubeconfig, namespaces, Services, sessions, profiles and rules.
The packages for Debian and Fedora have it installed already.

  source <(podnet completion bash)                      in ~/.bashrc
  source <(podnet completion zsh)                       in ~/.zshrc, after compinit
  podnet completion fish | source                       in ~/.config/fish/config.fish
  podnet completion powershell | Out-String | Invoke-Expression

kubectl completes "kubectl podnet" by itself, from 1.26 on, with the program
kubectl_complete-podnet beside kubectl-podnet in the PATH.`,
		ValidArgsFunction: cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || shells[args[0]] == nil {
				return exit.Usagef("for which shell? want %s", words.Choice(all))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return shells[args[0]](cmd.Root(), cmd.OutOrStdout())
		},
	}
}
