package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/boot"
	"podnet.dev/e2e/lab/internal/topology"
)

// cluster are the verbs for a further cluster.
func (a *app) cluster() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Boot a further cluster in the lab that is up, or take it down",
		Long: fmt.Sprintf(`Boot a further cluster in the lab that is up, or take it down. It is wholly
separate: a node, an API server and keys of its own. Its pods and Services have
the same addresses as the lab's own, and its shop says in its answers where it is.
The laptops' users get a context of its name. There can be: %s.`, strings.Join(topology.Clusters, ", ")),
	}
	cmd.AddCommand(&cobra.Command{
		Use: "up NAME", Short: "Boot it, unless it is up", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onLab(func(l *boot.Lab) error {
				set, err := assets.Make(cmd.Context(), a.report)
				if err != nil {
					return err
				}
				return l.ClusterUp(cmd.Context(), args[0], set)
			})
		},
	}, &cobra.Command{
		Use: "down NAME", Short: "Take it down, whatever state it is in", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onLab(func(l *boot.Lab) error { return l.ClusterDown(cmd.Context(), args[0]) })
		},
	})
	return cmd
}

// ofCluster lets the commands be about a further cluster.
func (a *app) ofCluster(commands ...*cobra.Command) []*cobra.Command {
	var name string
	for _, cmd := range commands {
		cmd.Flags().StringVar(&name, "cluster", "", "in this further cluster in place of the lab's own: "+strings.Join(topology.Clusters, ", "))
		cmd.PreRunE = func(*cobra.Command, []string) error {
			if name == "" {
				return nil
			}
			if !slices.Contains(topology.Clusters, name) {
				return fmt.Errorf("no cluster %q: there can be %s", name, strings.Join(topology.Clusters, ", "))
			}
			a.dir = a.dir.Cluster(name)
			return nil
		}
	}
	return commands
}
