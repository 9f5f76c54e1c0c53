package inbound

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// listing is what the lists of rules and of exposures are asked for.
type listing struct {
	output, namespace string
	owners, all       bool
}

// things are what a list shows: rules, or exposures.
type things[T any] struct {
	short, plural string
	get           func(ctx context.Context, c *localapi.Client, owners bool, namespace string) ([]T, error)
	whole         func([]T) any // for programs
	place         func(T) (namespace, name string)
	print         func(w io.Writer, all []T, owners bool, now time.Time)
	wide          func(w io.Writer, all []T)
}

// newList is the command list of things of a session, or with --all-owners of the
// cluster.
func newList[T any](env *caller.Env, of things[T]) *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use:   "list",
		Short: of.short,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _ := session.Client(cmd)
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			if err := l.check(ctx, c, session.NameOf(cmd)); err != nil {
				return err
			}
			all, err := of.get(ctx, c, l.owners, l.namespace)
			if err != nil {
				return session.NotConnected(err)
			}
			return of.show(env, l, slices.DeleteFunc(all, func(t T) bool {
				namespace, _ := of.place(t)
				return l.hides(namespace)
			}))
		},
	}
	f := cmd.Flags()
	answer.Flag(f, &l.output, answer.ListForms, "")
	f.BoolVar(&l.owners, "all-owners", false, "everybody's "+of.plural+", as the cluster has them")
	f.StringVarP(&l.namespace, "namespace", "n", "", "of this namespace only (default with --all-owners: the session's)")
	f.BoolVarP(&l.all, "all-namespaces", "A", false, "of every namespace")
	return cmd
}

func (of things[T]) show(env *caller.Env, l listing, all []T) error {
	switch {
	case answer.ForPrograms(l.output):
		return answer.Print(env.Out, l.output, of.whole(all))
	case l.output == answer.Name:
		return answer.Names(env.Out, all, func(t T) string { _, name := of.place(t); return name })
	}
	out := words.Shown(env.Out)
	of.print(out, all, l.owners, time.Now())
	if l.output == answer.Wide {
		of.wide(out, all)
	}
	return nil
}

// newStop is the command stop of things of this machine, which list shows; none says that
// there were none. stop ends the one of a name, all with an empty one, and returns their
// names.
func newStop(env *caller.Env, short, things, list, none string, stop func(ctx context.Context, c *localapi.Client, name string) ([]string, error)) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "stop NAME... | --all",
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return &localapi.Error{Code: localapi.CodeUsage, Message: "want names of " + things + ", or --all", Hint: list}
			}
			if all {
				names = []string{""}
			}
			c, _ := session.Client(cmd)
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			stopped := 0
			for _, name := range names {
				gone, err := stop(ctx, c, name)
				if err != nil {
					return session.NotConnected(err)
				}
				for _, n := range gone {
					stopped++
					fmt.Fprintf(env.Notes(), "%s stopped\n", n)
				}
			}
			if stopped == 0 {
				fmt.Fprintln(env.Notes(), none)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all "+things+" of this machine")
	return cmd
}

// check finds what is wrong with the flags. Everybody's is of the session's
// namespace where none is named.
func (l *listing) check(ctx context.Context, c *localapi.Client, of string) error {
	switch {
	case l.all && l.namespace != "":
		return exit.Usagef("--all-namespaces and --namespace do not go together")
	case !l.owners || l.all || l.namespace != "":
		return nil
	}
	s, err := session.Status(ctx, c)
	if err != nil || len(s.Connections) == 0 {
		return err
	}
	connection, err := session.Of(s, of)
	l.namespace = connection.Namespace
	return err
}

// hides reports whether a thing in a namespace was not asked for. Of everybody's
// the daemon lists only what was.
func (l listing) hides(namespace string) bool {
	return !l.owners && l.namespace != "" && namespace != l.namespace
}
