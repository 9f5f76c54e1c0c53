package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/cli"
	"podnet.dev/client/cli/admin"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/cluster"
	"podnet.dev/client/config"
	"podnet.dev/client/daemon"
	"podnet.dev/client/doctor"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/client/rootless"
	"podnet.dev/client/ui"
	"podnet.dev/deploy"
	"podnet.dev/internal/nocore"
	"podnet.dev/internal/overview"
)

// hostState holds the journals of what is changed on this machine. The host's
// resolver settings outlive a reboot, and so must the note of what they were.
const hostState = "/var/lib/podnet"

// idle is how long a daemon that the CLI started waits for work.
const idle = time.Minute

// hostStateDir can be moved, for machines that share a file system but not
// their network set-up.
func hostStateDir() string {
	if dir := os.Getenv("PODNET_STATE_DIR"); dir != "" {
		return dir
	}
	return helper.StateDir(hostState)
}

func logFile() string { return filepath.Join(localapi.StateDir(), "daemon.log") }

func startDaemon(ctx context.Context, socket string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the podnet program: %w", err)
	}
	return daemon.Start(ctx, socket, logFile(), exe, "daemon", "--on-demand", "--socket", socket)
}

// spawn runs podnet once more, in the background, with its own log.
func spawn(args []string) (*outbound.Spawned, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the podnet program: %w", err)
	}
	log := filepath.Join(localapi.StateDir(), "proxy.log")
	cmd, out, err := daemon.Spawn(log, append([]string{exe}, args...)...)
	if err != nil {
		return nil, err
	}
	return &outbound.Spawned{PID: cmd.Process.Pid, Out: out, Log: log, Stop: func() error { return cmd.Process.Signal(syscall.SIGTERM) }}, nil
}

// logger writes from a level on or, with PODNET_DEBUG, everything.
func logger(to io.Writer, level slog.Level) *slog.Logger {
	if os.Getenv("PODNET_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: level}))
}

// daemonLog is what a daemon writes to, and its end: the log file, and stderr unless
// that is the same. Where there is no room or no right to write a file, it is stderr
// alone: a full disk must not keep anybody from connecting.
func daemonLog(onDemand bool) (io.Writer, func()) {
	sameAsStderr := onDemand // until the file is set aside
	file, err := daemon.OpenLog(logFile(), func(f *os.File) {
		if !sameAsStderr {
			_ = debug.SetCrashOutput(f, debug.CrashOptions{}) // else a panic is told on stderr alone
		}
		sameAsStderr = false
	})
	switch {
	case err != nil:
		return os.Stderr, func() {}
	case onDemand:
		return file, func() { _ = file.Close() }
	}
	return io.MultiWriter(os.Stderr, file), func() { _ = file.Close() }
}

// forbidCores is for what holds keys as long as it runs.
func forbidCores(log *slog.Logger) {
	if err := nocore.Forbid(); err != nil {
		log.Warn("a crash may leave a core with keys in it", "err", err)
	}
}

// runProxy is a session that notes its objects nowhere: others of this user may run
// beside it, and when it is killed its lease ends.
func runProxy(ctx context.Context, o outbound.ProxyOptions) error {
	log := logger(os.Stderr, slog.LevelError)
	forbidCores(log)
	return rootless.Run(ctx, rootless.Options{
		Session: client.Config{
			Request: o.Request, Events: o.Events, Log: log,
			OpenCluster: func(kube localapi.Kube) (client.Cluster, error) { return cluster.Open(kube, log) },
		},
		Resolvers: osdns.Resolvers(osdns.Options{}), Listen: o.Listen, Forwards: o.Forwards, Ready: o.Ready,
	})
}

func runDaemon(ctx context.Context, o cli.DaemonOptions) error {
	out, closeLog := daemonLog(o.OnDemand)
	defer closeLog()
	log := logger(out, slog.LevelInfo)
	forbidCores(log)
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the podnet program: %w", err)
	}
	opts := daemon.Options{Socket: o.Socket, OnDemand: o.OnDemand, Idle: idle, Log: log, LogFile: logFile()}
	opts.Dashboard = ui.New(ui.Config{Client: localapi.NewClient(o.Socket), Log: log})
	open := func(kube localapi.Kube) (client.Cluster, error) { return cluster.Open(kube, log) }
	exports := client.NewExports(client.ExportsConfig{OpenCluster: open, StateDir: localapi.StateDir(), Log: log})
	opts.Exports = exports
	host := helper.NewHost(helper.Options{StateDir: hostStateDir(), Guard: []string{exe, "guard", hostStateDir()}, Log: log})
	fleet := new(client.Fleet)
	opts.Where = func(kube localapi.Kube) (context, server string, err error) {
		c, err := cluster.Open(kube, log)
		if err != nil {
			return "", "", err
		}
		id := c.Whoami()
		return id.Context, id.Server, nil
	}
	opts.Contexts, opts.Profiles = cluster.Contexts, config.UserStore()
	opts.NewSession = func(req localapi.ConnectRequest, events func(localapi.Event)) daemon.Session {
		return client.New(client.Config{
			Request: req, Fleet: fleet, StateDir: localapi.StateDir(), Log: log, OpenCluster: open, OpenHelper: opener(host),
			Events: func(e localapi.Event) {
				if events(e); e.Type == localapi.EventReady { // credentials have just been good
					exports.Use(req.Kube)
				}
			},
		})
	}
	opts.Doctor = func(ctx context.Context, req localapi.DoctorRequest, status func() localapi.Status, say func(localapi.Finding)) error {
		return doctor.Run(ctx, doctor.Config{
			Request: req, Status: status, Log: log,
			OpenCluster: func(kube localapi.Kube) (doctor.Cluster, error) { return cluster.Open(kube, log) },
		}, say)
	}
	return daemon.Run(ctx, opts)
}

func guard(stateDir string, in io.Reader) error { return helper.Guard(stateDir, in) }

func cleanup(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return nil // who may not change the host has left nothing on it
	}
	return helper.Cleanup(ctx, hostStateDir())
}

// clusterWords finds what a shell completes.
type clusterWords struct{}

func (clusterWords) Contexts(kube localapi.Kube) ([]localapi.Context, error) {
	return cluster.Contexts(kube)
}

func (clusterWords) Names(ctx context.Context, kube localapi.Kube, resource, namespace string) ([]string, error) {
	c, err := cluster.Open(kube, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return c.Names(ctx, resource, namespace)
}

// installer adapts the command line's flags to the cluster's.
type installer struct{}

func (installer) Render(o admin.InstallOptions, format string) ([]byte, error) {
	return cluster.Manifests(deployOptions(o), format)
}

func (installer) Install(ctx context.Context, kube localapi.Kube, o admin.InstallOptions, say func(string)) error {
	return cluster.InstallTo(ctx, kube, deployOptions(o), say, slog.New(slog.DiscardHandler))
}

func (installer) Uninstall(ctx context.Context, kube localapi.Kube, namespace string, say func(string)) error {
	return cluster.UninstallFrom(ctx, kube, namespace, say, slog.New(slog.DiscardHandler))
}

// admins adapts what administrators ask.
type admins struct{}

func (admins) Top(ctx context.Context, kube localapi.Kube, namespace string, every time.Duration, each func([]overview.Gateway) error) error {
	return cluster.OverviewsOf(ctx, kube, namespace, every, each)
}

func (admins) Revoke(ctx context.Context, kube localapi.Kube, namespace, who string) ([]admin.Revoked, error) {
	ended, err := cluster.RevokeAt(ctx, kube, namespace, who)
	all := make([]admin.Revoked, len(ended))
	for i, r := range ended {
		all[i] = admin.Revoked(r)
	}
	return all, err
}

func deployOptions(o admin.InstallOptions) deploy.Options {
	return deploy.Options{
		Namespace: o.Namespace, Namespaced: o.Namespaced, ServiceCIDRs: o.ServiceCIDRs, Image: o.Image, AgentImage: o.AgentImage, PullPolicy: o.PullPolicy, ImagePullSecrets: o.ImagePullSecrets, Replicas: o.Replicas,
		UDPService: o.UDPService, NodePort: o.NodePort, Advertise: o.Advertise, PodCIDRs: o.PodCIDRs, STUN: o.STUN, DNSDomain: o.DNSDomain, Memory: o.Memory, RequestMemory: o.RequestMemory, RequestCPU: o.RequestCPU, Limits: o.Limits, UserMetrics: o.UserMetrics,
		NoNetworkPolicy: o.NoNetworkPolicy, MetricsFrom: o.MetricsFrom, LogLevel: o.LogLevel,
		Users: o.Users, Groups: o.Groups,
	}
}

// signals are those that a command hears of in place of us.
func signals() (<-chan os.Signal, func()) {
	all := make(chan os.Signal, 16)
	signal.Notify(all, forwarded...)
	return all, func() { signal.Stop(all) }
}

// containerEnvironment reads with the user's own rights what a container's environment
// is made of.
func containerEnvironment(ctx context.Context, r outbound.ContainerRequest) (outbound.ContainerEnvironment, error) {
	c, err := cluster.Open(r.Kube, logger(os.Stderr, slog.LevelError))
	if err != nil {
		return outbound.ContainerEnvironment{}, err
	}
	e, err := c.Environment(ctx, cmp.Or(r.Namespace, c.Whoami().Namespace), r.Target, r.Container)
	if err != nil {
		return outbound.ContainerEnvironment{}, err
	}
	return outbound.ContainerEnvironment{Container: e.Container, Vars: e.Vars, Unknown: e.Unknown}, nil
}
