package caller

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/config"
	"podnet.dev/client/localapi"
)

// layer is what flags are when nothing nearer says anything, by their names.
type layer map[string]config.Default

// rivals are flags of which one that was given leaves nothing to what a farther
// layer has for the other.
var rivals = map[string]string{"namespace": "all-namespaces", "all-namespaces": "namespace"}

// Preset sets every flag that was not given: from its variable, or else from the
// first of the layers that has it.
func (env *Env) Preset(set *pflag.FlagSet) error {
	if err := fromEnvironment(set, env.Environ); err != nil {
		return err
	}
	for _, l := range env.layers {
		given := map[string]bool{}
		set.Visit(func(f *pflag.Flag) { given[f.Name] = true })
		var err error
		set.VisitAll(func(f *pflag.Flag) {
			d, ok := l[f.Name]
			if !ok || f.Changed || given[rivals[f.Name]] || f.Annotations[flags.NoVariable] != nil || err != nil {
				return
			}
			for _, v := range d.Values {
				if e := set.Set(f.Name, v); e != nil {
					err = &config.Error{Place: d.From, Text: fmt.Sprintf("--%s: %v", f.Name, e)}
					return
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fromEnvironment sets every flag that was not given from its variable.
func fromEnvironment(set *pflag.FlagSet, environ []string) error {
	values := map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, "PODNET_") {
			values[name] = value
		}
	}
	var err error
	set.VisitAll(func(f *pflag.Flag) {
		name := variable(f.Name)
		value, ok := values[name]
		if !ok || f.Changed || f.Name == "help" || f.Annotations[flags.NoVariable] != nil || err != nil {
			return
		}
		if e := set.Set(f.Name, value); e != nil {
			err = exit.Usagef("variable %s: %v", name, e)
		}
	})
	return err
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "PODNET_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const (
	// NoConfig annotates commands, and those below them, that work without the
	// configuration, whatever is wrong with it.
	NoConfig = "podnet/no-config"
	// TakesProfile annotates commands whose one argument is a profile.
	TakesProfile = "podnet/takes-profile"
)

// Configure reads the configuration for a command.
func (env *Env) Configure(cmd *cobra.Command, args []string) error {
	for c := cmd; c != nil; c = c.Parent() {
		if c.Annotations[NoConfig] != "" {
			return nil
		}
	}
	c, err := env.LoadConfig(cmd.Root())
	if err != nil {
		return err
	}
	env.layers = []layer{c.Defaults}
	if cmd.Annotations[TakesProfile] != "" && len(args) == 1 {
		p, ok := c.Profile(args[0])
		if !ok {
			return noProfile(c, args[0])
		}
		env.Profile = &p
		env.layers = slices.Insert(env.layers, 0, wordsLayer(p.Connect, env.Environ))
	}
	return nil
}

// LoadConfig reads what there is where the user stands.
func (env *Env) LoadConfig(root *cobra.Command) (config.Config, error) {
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // it has been deleted; there is no project then
	}
	return env.Store(root).LoadAt(dir)
}

// Store is the configuration with what this program knows of flags.
func (env *Env) Store(root *cobra.Command) config.Store {
	s := config.StoreOf(env.Environ)
	s.Check = func(flag string, values []string) error { return env.checkDefault(root, flag, values) }
	return s
}

// wordsLayer are the flags that say what the words do, but for --as, which is not
// kubectl's.
func wordsLayer(w localapi.Words, environ []string) layer {
	l := layer{}
	add := func(flag string, values ...string) {
		if len(values) > 0 && values[0] != "" && values[0] != "false" {
			l[flag] = config.Default{Values: values}
		}
	}
	add("context", w.Context)
	add("kubeconfig", w.KubeconfigIn(environ))
	add("namespace", w.Namespaces...)
	add("all-namespaces", strconv.FormatBool(w.AllNamespaces))
	add("path", w.Path)
	add("addresses", w.Addresses)
	add("device", w.Device)
	add("gateway-namespace", w.GatewayNamespace)
	add("primary", strconv.FormatBool(w.Primary))
	add("reconnect", strconv.FormatBool(w.Reconnect))
	add("also-route", w.AlsoRoutes...)
	add("also-domain", w.AlsoDomains...)
	add("never-route", w.NeverRoutes...)
	if w.LeaseSeconds != 0 {
		add("lease", (time.Duration(w.LeaseSeconds) * time.Second).String())
	}
	return l
}

// checkDefault finds what is wrong with what a file says of a flag.
func (env *Env) checkDefault(root *cobra.Command, name string, values []string) error {
	var req localapi.ConnectRequest
	var lease time.Duration
	connecting := pflag.NewFlagSet("connect", pflag.ContinueOnError)
	flags.Connect(connecting, env.Environ, &req, &lease)
	f := connecting.Lookup(name)
	ofConnect := f != nil
	if !ofConnect {
		if f = flagOf(root, name); f == nil {
			return fmt.Errorf("no flag of podnet's has this name, or it is one that belongs on the command line")
		}
	}
	if _, many := f.Value.(pflag.SliceValue); !many && len(values) > 1 {
		return fmt.Errorf("want one value, not %d", len(values))
	}
	if !ofConnect {
		return checkType(f.Value.Type(), values[0])
	}
	for _, v := range values {
		if err := connecting.Set(name, v); err != nil {
			return err
		}
	}
	return flags.CheckConnect(&req, lease)
}

// checkType is for flags that are a command's own affair.
func checkType(kind, value string) error {
	var err error
	switch kind {
	case "bool":
		_, err = strconv.ParseBool(value)
	case "duration":
		_, err = time.ParseDuration(value)
	case "int", "int32", "int64":
		_, err = strconv.Atoi(value)
	}
	if err != nil {
		return fmt.Errorf("%q is no %s", value, kind)
	}
	return nil
}

// flagOf finds a flag of any command that a default can be for.
func flagOf(cmd *cobra.Command, name string) *pflag.Flag {
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
		if f := set.Lookup(name); f != nil && f.Annotations[flags.NoVariable] == nil && name != "help" {
			return f
		}
	}
	for _, c := range cmd.Commands() {
		if f := flagOf(c, name); f != nil {
			return f
		}
	}
	return nil
}

// noProfile says which there are.
func noProfile(c config.Config, name string) error {
	hint := "podnet profile save " + name + " --context CONTEXT makes one; podnet connect -n " + name + " opens a namespace"
	if len(c.Profiles) > 0 {
		var names []string
		for _, p := range c.Profiles {
			names = append(names, p.Name)
		}
		hint = "there are " + strings.Join(names, ", ") + "; podnet connect -n " + name + " opens a namespace"
	}
	return &localapi.Error{Code: localapi.CodeUsage, Message: "there is no profile " + name, Hint: hint}
}
