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
	"podnet.dev/client/cluster"
	"podnet.dev/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := cli.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ(), Ask: cli.Terminal(os.Stdin, os.Stderr),
		Name: filepath.Base(os.Args[0]), Kube: cluster.NewFlags(), Cluster: clusterWords{}, Installer: installer{}, Admin: admin{}, DefaultImage: "podnet.dev/gateway:" + version.Version,
		DefaultAgentImage: "podnet.dev/agent:" + version.Version,
		StartDaemon:       startDaemon, RunDaemon: runDaemon, Proxy: runProxy, Spawn: spawn, Browse: browse.Open, Guard: guard, Cleanup: cleanup, Setup: setUp,
		LogFile: logFile(), Autostart: autostart.New(),
		Signals: signals, ContainerEnvironment: containerEnvironment,
	}
	withRooms(&env)
	os.Exit(cli.Run(ctx, env, os.Args[1:]))
}
