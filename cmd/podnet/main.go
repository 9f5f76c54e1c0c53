// Podnet puts this machine on the pod network of a Kubernetes cluster.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"podnet.dev/client/autostart"
	"podnet.dev/client/browse"
	"podnet.dev/client/cli"
	"podnet.dev/client/cli/admin"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/cluster"
	"podnet.dev/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := cli.Env{
		Env: caller.Env{
			In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ(), Ask: caller.Terminal(os.Stdin, os.Stderr), Kube: cluster.NewFlags(), StartDaemon: startDaemon,
		},
		Host:     outbound.Host{Proxy: runProxy, Spawn: spawn, Signals: signals, ContainerEnvironment: containerEnvironment},
		Clusters: admin.Clusters{Installer: installer{}, Admin: admins{}, DefaultImage: "podnet.dev/gateway:" + version.Version, DefaultAgentImage: "podnet.dev/agent:" + version.Version},
		Name:     filepath.Base(os.Args[0]), Cluster: clusterWords{}, Browse: browse.Open, Setup: setUp, Autostart: autostart.New(),
		RunDaemon: runDaemon, LogFile: logFile(), Guard: guard, Cleanup: cleanup,
	}
	withRooms(&env)
	os.Exit(cli.Run(ctx, env, os.Args[1:]))
}
