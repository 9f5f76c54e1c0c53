package boot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/kube"
	"podnet.dev/e2e/lab/internal/netns"
	"podnet.dev/e2e/lab/internal/report"
	"podnet.dev/e2e/lab/internal/router"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

// Up brings up a lab with these options. One that is up and healthy, with the
// same options and programs, is left as it is; any other is taken down first.
func Up(ctx context.Context, dir state.Dir, o topology.Options, set assets.Set, r *report.Report) (err error) {
	plan, err := topology.New(o)
	if err != nil {
		return err
	}
	want, err := wanted(dir, plan, set)
	if err != nil {
		return err
	}
	if o.Resolved && set.Resolved == "" {
		return errors.New("systemd-resolved is not in the cache: run \"lab build\" where Debian's packages can be reached")
	}
	if have, err := Open(dir, r); err == nil {
		why := have.whyNot(ctx, want)
		if why == nil {
			r.Say("the lab is up already")
			return nil
		}
		r.Say("taking the old lab down: %v", why)
	}
	if err := Down(ctx, dir, r); err != nil {
		return err
	}
	l, err := newLab(dir, want, plan, r)
	if err != nil {
		return err
	}
	return l.boot(ctx, set)
}

// wanted is the record of a lab that is up by this plan.
func wanted(dir state.Dir, plan topology.Lab, set assets.Set) (state.Record, error) {
	fingerprint, err := set.Fingerprint()
	if err != nil {
		return state.Record{}, err
	}
	c := kube.Cluster{State: dir, Lab: plan, Bin: set.Bin}
	config := sha256.Sum256([]byte(c.Text() + c.Objects() + fmt.Sprint(plan.Links())))
	return state.Record{Options: plan.Options, Assets: fmt.Sprintf("%s-%x", fingerprint, config[:8]), Bin: set.Bin}, nil
}

// boot brings up what is not there at all.
func (l *Lab) boot(ctx context.Context, set assets.Set) error {
	if err := l.up(ctx, set); err != nil {
		err = errors.Join(err, l.running())
		return fmt.Errorf("%w\nhint: logs are in %s; \"lab down\" clears up", err, l.State.Path("log"))
	}
	l.Record.Ready = true
	if err := l.State.Save(l.Record); err != nil {
		return err
	}
	l.Report.Say("%s is up: %s", l.Plan.Context(), strings.Join(l.Plan.Names(), ", "))
	return nil
}

// whyNot says why this lab is not the one that is wanted; nil if it is.
func (l *Lab) whyNot(ctx context.Context, want state.Record) error {
	if !l.Record.Ready {
		return errors.New("its boot did not end")
	}
	if l.Record.Options != want.Options {
		return fmt.Errorf("it has other options: %+v", l.Record.Options)
	}
	if l.Record.Assets != want.Assets {
		return errors.New("it runs other programs, images or settings")
	}
	return l.Healthy(ctx)
}

// Healthy says whether everything runs and the API server answers.
func (l *Lab) Healthy(ctx context.Context) error {
	if err := l.running(); err != nil {
		return err
	}
	for _, ns := range l.Plan.Namespaces() {
		if !exists(netns.Path(ns)) {
			return fmt.Errorf("network namespace %s is gone", ns)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := l.Kubectl(ctx, "", "get", "--raw", "/readyz")
	return err
}

// running says which of the started programs have ended.
func (l *Lab) running() error {
	all, err := l.State.Procs().All()
	errs := []error{err}
	for _, p := range all {
		if !p.Alive() {
			errs = append(errs, fmt.Errorf("%s has ended: see %s", p.Name, p.Log))
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) up(ctx context.Context, set assets.Set) error {
	r := l.Report
	if err := os.MkdirAll(string(l.State), 0o755); err != nil {
		return err
	}
	if err := l.State.Save(l.Record); err != nil { // from here on "down" has something to find
		return err
	}
	c := l.Cluster()
	if err := r.Step("laid links, made keys and machines", func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return l.network(ctx) })
		g.Go(func() error { return errors.Join(c.WriteKeys(), c.WriteFiles()) })
		if l.Record.Options.Resolved {
			g.Go(func() error { return copyTree(ctx, set.Resolved, l.State.Path("resolved")) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		return l.machines()
	}); err != nil {
		return err
	}
	if !l.further() {
		if err := l.internet(set); err != nil {
			return err
		}
	}
	for _, k := range c.ControlPlane()[:2] { // etcd and the API server
		if err := l.startComponent(k); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range l.Plan.Of(topology.Node) {
		g.Go(func() error { return l.containers(gctx, n, set.Images) })
	}
	g.Go(func() error {
		return r.Step("API server answers", func() error { return l.serverReady(gctx) })
	})
	if !l.further() {
		g.Go(func() error { return l.resolvers(gctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := l.nodes(ctx); err != nil {
		return err
	}
	if err := r.Step("nodes are ready", func() error {
		_, err := l.Kubectl(ctx, "", "wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
		return err
	}); err != nil {
		return err
	}
	return r.Step("DNS and the shop are open", func() error { return l.rollouts(ctx) })
}

// network makes the namespaces and lays the links.
func (l *Lab) network(ctx context.Context) error {
	// The one module that nothing loads by itself. Where it is built in, or
	// cannot be had, this fails, and the links will tell.
	_ = exec.CommandContext(ctx, "modprobe", "br_netfilter").Run()
	if err := netns.Add(ctx, l.Plan.Namespaces()...); err != nil {
		return err
	}
	for _, ns := range l.Plan.Namespaces() {
		if err := netns.Sysctl(ns, sysctls(ns, l.Plan)); err != nil {
			return err
		}
	}
	for _, b := range l.Plan.Links() {
		if err := netns.Batch(ctx, b.NS, b.Lines); err != nil {
			return err
		}
	}
	if l.further() {
		return nil // the router is the lab's
	}
	return router.Load(ctx, l.Plan, router.State{})
}

// sysctls are the settings of a namespace, below /proc/sys/net.
func sysctls(ns string, plan topology.Lab) map[string]string {
	s := map[string]string{
		// What the loopback interface would wait for.
		"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
		"ipv6/conf/all/accept_ra": "0", "ipv6/conf/default/accept_ra": "0",
		"ipv6/conf/all/disable_ipv6": "0", "ipv6/conf/default/disable_ipv6": "0",
		// Anybody may ping, as on the desktops of today.
		"ipv4/ping_group_range": "0 2147483647",
		// Some hosts' own default would drop what comes in by another way than
		// answers go out, as while a wire is put in.
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
	}
	forwards := true
	for _, m := range plan.Of(topology.Laptop) {
		if ns == m.NS() {
			forwards = false
		}
	}
	if forwards {
		s["ipv4/ip_forward"] = "1"
		s["ipv6/conf/all/forwarding"] = "1"
		// A Service answered by a pod on the same bridge must come back through
		// the node's translation.
		s["bridge/bridge-nf-call-iptables"] = "1"
		s["bridge/bridge-nf-call-ip6tables"] = "1"
	}
	return s
}

func (l *Lab) machines() error {
	var g errgroup.Group
	for _, m := range l.Plan.Machines {
		g.Go(func() error { return l.hold(m) })
	}
	return g.Wait()
}

func (l *Lab) startComponent(k kube.Component) error {
	_, err := l.start(k.Name, k.Machine.Name, nil, k.Argv)
	return err
}

// containers starts a node's containerd and gives it the images.
func (l *Lab) containers(ctx context.Context, n topology.Machine, images []string) error {
	c := l.Cluster()
	if err := l.onMachine(ctx, n.Name, "", "cp", "-rT", filepath.Join(l.State.Machine(n.Name), "conf", "cni"), "/etc/cni/net.d"); err != nil {
		return err
	}
	if err := l.onMachine(ctx, n.Name, "", "nft", "-f", filepath.Join(l.State.Machine(n.Name), "conf", "pods.nft")); err != nil {
		return err
	}
	if err := makeCgroups(kube.CgroupRoot(n)); err != nil {
		return err
	}
	if err := l.startComponent(c.Containerd(n)); err != nil {
		return err
	}
	if err := eventually(ctx, 20*time.Second, func() error {
		return l.onMachine(ctx, n.Name, "", "ctr", "--timeout=2s", "version")
	}); err != nil {
		return fmt.Errorf("containerd on %s: %w", n.Name, err)
	}
	return l.Report.Step("containerd on "+n.Name+" has its images", func() error {
		return l.importImages(ctx, n, images)
	})
}

func (l *Lab) importImages(ctx context.Context, n topology.Machine, images []string) error {
	for _, image := range images {
		if err := l.onMachine(ctx, n.Name, "", "ctr", "-n=k8s.io", "images", "import", image); err != nil {
			return fmt.Errorf("import %s on %s: %w", image, n.Name, err)
		}
	}
	return nil
}

// serverReady waits for the API server. It may give up on an etcd that is
// slower than itself.
func (l *Lab) serverReady(ctx context.Context) error {
	return eventually(ctx, 60*time.Second, func() error {
		p, err := l.State.Procs().Get(kube.APIServer)
		if err == nil && !p.Alive() {
			if _, err := l.State.Procs().Start(p.Spec, nil); err != nil {
				return err
			}
		}
		_, err = l.Kubectl(ctx, "", "get", "--raw", "/readyz")
		return err
	})
}

// nodes registers the nodes, starts what runs on them, and hands over every
// object that the cluster needs.
func (l *Lab) nodes(ctx context.Context) error {
	c := l.Cluster()
	return l.Report.Step("started the nodes and made the objects", func() error {
		if _, err := l.Kubectl(ctx, c.Nodes(), "create", "-f", "-"); err != nil {
			return err
		}
		components := c.ControlPlane()[2:]
		for _, n := range l.Plan.Of(topology.Node) {
			components = append(components, c.NodeComponents(n)...)
		}
		for _, k := range components {
			if err := l.startComponent(k); err != nil {
				return err
			}
		}
		_, err := l.Kubectl(ctx, c.Objects(), "apply", "--server-side", "-f", "-")
		return err
	})
}

func (l *Lab) rollouts(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range [][2]string{
		{"kube-system", "deployment/coredns"}, {"shop", "deployment/web"}, {"shop", "statefulset/db"},
		{"shop", "deployment/refuses"}, {"pay", "deployment/till"},
	} {
		g.Go(func() error {
			_, err := l.Kubectl(ctx, "", "rollout", "status", "-n", w[0], w[1], "--timeout=90s")
			return err
		})
	}
	return g.Wait()
}

// Kubectl runs kubectl as the cluster's admin on the control plane's node.
func (l *Lab) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	argv := append([]string{filepath.Join(l.Record.Bin, "kubectl"), "--kubeconfig=" + l.State.Kubeconfig("admin")}, args...)
	return netns.Run(ctx, l.Plan.ControlPlane().NS(), input, argv...)
}

// onMachine runs a command on a machine, to its end.
func (l *Lab) onMachine(ctx context.Context, name, input string, argv ...string) error {
	cmd := exec.CommandContext(ctx, l.self, append([]string{"exec", name, "--"}, argv...)...)
	cmd.Env = append(os.Environ(), "PODNET_LAB_STATE="+string(l.State))
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s: %w: %s", name, strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func copyTree(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-aT", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}

// Load gives images to every node.
func (l *Lab) Load(ctx context.Context, images []string) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range l.Plan.Of(topology.Node) {
		g.Go(func() error { return l.importImages(ctx, n, images) })
	}
	return g.Wait()
}
