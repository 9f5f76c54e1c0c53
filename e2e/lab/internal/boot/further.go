package boot

import (
	"context"
	"errors"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/kube"
	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

// A further cluster is a Lab of its own, whose folder is inside the lab's, and whose
// node hangs on the lab's router. The lab itself does not depend on it.

// further says whether this is one.
func (l *Lab) further() bool { return l.Record.Options.Cluster != "" }

// ClusterUp boots a further cluster and gives a context for it to the laptops' users.
// One that is up and healthy is left as it is.
func (l *Lab) ClusterUp(ctx context.Context, name string, set assets.Set) error {
	plan, dir, err := l.clusterPlan(name)
	if err != nil {
		return err
	}
	want, err := wanted(dir, plan, set)
	if err != nil {
		return err
	}
	if have, err := Open(dir, l.Report); err == nil && have.whyNot(ctx, want) == nil {
		l.Report.Say("%s is up already", name)
		return nil
	}
	if err := l.ClusterDown(ctx, name); err != nil {
		return err
	}
	c, err := newLab(dir, want, plan, l.Report)
	if err != nil {
		return err
	}
	if err := c.boot(ctx, set); err != nil {
		return err
	}
	return l.Cluster().WriteHomeKubeconfigs(c.Cluster())
}

// ClusterDown ends whatever there is of a further cluster.
func (l *Lab) ClusterDown(ctx context.Context, name string) error {
	plan, dir, err := l.clusterPlan(name)
	if err != nil || !exists(string(dir)) {
		return err
	}
	return l.Report.Step("took "+name+" down", func() error {
		// A link goes some time after the namespace that its other end is in.
		unplug := plan.Unplug()
		_ = netns.Batch(ctx, unplug.NS, unplug.Lines) // it may not be there
		return errors.Join(
			remove(ctx, dir, plan.Namespaces(), kube.CgroupRoot(plan.ControlPlane())),
			l.Cluster().WriteHomeKubeconfigs())
	})
}

func (l *Lab) clusterPlan(name string) (topology.Lab, state.Dir, error) {
	plan, err := topology.New(topology.Options{Nodes: 1, DualStack: l.Record.Options.DualStack, Cluster: name})
	return plan, l.State.Cluster(name), err
}
