package settings

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/config"
	"podnet.dev/client/localapi"
)

func newConfig(env *caller.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and change what podnet does unless told otherwise",
		Long: `Show and change what podnet does unless told otherwise. A flag is what the
command line says, or its variable, PODNET_PATH for --path, or else what the first
of these files says that says anything:

  .podnet.yaml                  of the project: the nearest above where you are
  ~/.config/podnet/config.yaml  your own; podnet config path names it
  /etc/podnet/config.yaml       the administrator's

  apiVersion: podnet/v1
  kind: Config
  defaults:                     any flag that has a variable
    path: udp
    namespace: [shop, pay]
  profiles:                     for podnet connect NAME; see podnet profile
  - name: staging
    connect: {context: blue, namespaces: [shop]}
  tray:
    notify: false

A project may say what to connect to, and nothing about credentials.

  podnet config set defaults.namespace shop pay
  podnet config unset defaults.namespace`,
		Args:        flags.NoArguments,
		Annotations: map[string]string{caller.NoConfig: "it is to be repaired"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigView(env), newConfigGet(env), newConfigPath(env),
		&cobra.Command{
			Use: "set KEY VALUE...", Short: "Write a key of your own file", Args: flags.AtLeast(2, "podnet config set defaults.path udp"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return env.Store(cmd.Root()).Set(args[0], args[1:]...)
			},
		},
		&cobra.Command{
			Use: "unset KEY", Short: "Take a key out of your own file", Args: flags.AtLeast(1, "podnet config unset defaults.path"),
			RunE: func(cmd *cobra.Command, args []string) error { return env.Store(cmd.Root()).Unset(args[0]) },
		})
	return cmd
}

func newConfigView(env *caller.Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "view", Short: "Print what all files say together, and where",
		Args: flags.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.LoadConfig(cmd.Root())
			switch {
			case err != nil:
				return err
			case answer.ForPrograms(output):
				return answer.Print(env.Out, output, viewOf(c))
			}
			return printConfig(env.Out, c)
		},
	}
	answer.Flag(cmd.Flags(), &output, answer.FactForms, "")
	return cmd
}

// configView is the configuration in the form of a file.
type configView struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Defaults   map[string][]string `json:"defaults"`
	Profiles   []localapi.Profile  `json:"profiles"`
	Tray       struct {
		Notify bool `json:"notify"`
	} `json:"tray"`
}

func viewOf(c config.Config) configView {
	v := configView{APIVersion: localapi.APIVersion, Kind: config.Kind, Defaults: map[string][]string{}, Profiles: []localapi.Profile{}}
	for name, d := range c.Defaults {
		v.Defaults[name] = d.Values
	}
	for _, p := range c.Profiles {
		v.Profiles = append(v.Profiles, p.Profile)
	}
	v.Tray.Notify = c.Tray.Notify
	return v
}

// printConfig writes what could be a file, and after it where that is from.
func printConfig(w io.Writer, c config.Config) error {
	raw, err := yaml.Marshal(viewOf(c))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s", raw)
	say := func(key string, from config.Place) { fmt.Fprintf(w, "# %s: %s\n", key, from) }
	for _, name := range slices.Sorted(maps.Keys(c.Defaults)) {
		say("defaults."+name, c.Defaults[name].From)
	}
	for _, p := range c.Profiles {
		say("profile "+p.Name, p.From)
	}
	say("tray.notify", c.Tray.NotifyFrom)
	return nil
}

func newConfigGet(env *caller.Env) *cobra.Command {
	return &cobra.Command{
		Use: "get KEY", Short: "Print what a key is, each value on a line", Args: flags.AtLeast(1, "podnet config get defaults.path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.LoadConfig(cmd.Root())
			if err != nil {
				return err
			}
			flag, ok := strings.CutPrefix(args[0], "defaults.")
			switch {
			case args[0] == "tray.notify":
				fmt.Fprintln(env.Out, c.Tray.Notify)
			case !ok:
				return exit.Usagef("%q is no key: want defaults.FLAG or tray.notify", args[0])
			case c.Defaults[flag].Values == nil:
				return &localapi.Error{Code: localapi.CodeNotFound, Message: "no file sets " + args[0], Hint: "podnet config view lists what is set"}
			}
			for _, v := range c.Defaults[flag].Values {
				fmt.Fprintln(env.Out, v)
			}
			return nil
		},
	}
}

func newConfigPath(env *caller.Env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "path", Short: "Print the name of your own file", Args: flags.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := env.Store(cmd.Root())
			if !all {
				if s.User == "" {
					return &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no folder for a user's configuration", Hint: "HOME or XDG_CONFIG_HOME names it"}
				}
				fmt.Fprintln(env.Out, s.User)
				return nil
			}
			dir, _ := os.Getwd() // "" has no project
			for _, name := range []string{config.Project(dir), s.User, s.System} {
				if _, err := os.Stat(name); err == nil { // "" is nowhere
					fmt.Fprintln(env.Out, name)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "of every file that is read, the nearest first")
	return cmd
}
