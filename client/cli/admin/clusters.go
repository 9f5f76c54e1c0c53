// Package admin has the commands of a cluster's administrators: they put podnet into
// clusters and take it out, show who uses it, and throw people out.
package admin

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/overview"
)

// Clusters are what is asked of clusters by their administrators.
type Clusters struct {
	// Installer changes clusters.
	Installer Installer
	// Admin is what administrators ask of clusters.
	Admin Admin
	// DefaultImage and DefaultAgentImage are the images of this version.
	DefaultImage, DefaultAgentImage string
}

// setting is what these commands work with.
type setting struct {
	*caller.Env
	Clusters
}

// Commands are podnet install, uninstall and admin.
func Commands(env *caller.Env, c Clusters) []*cobra.Command {
	s := &setting{env, c}
	return []*cobra.Command{newInstall(s), newUninstall(s), newAdmin(s)}
}

// Installer puts podnet into a cluster and takes it out again.
type Installer interface {
	// Render gives the manifests as YAML or JSON.
	Render(o InstallOptions, format string) ([]byte, error)
	Install(ctx context.Context, kube localapi.Kube, o InstallOptions, say func(string)) error
	// Uninstall takes out what is for the whole cluster, or what is for one namespace.
	Uninstall(ctx context.Context, kube localapi.Kube, namespace string, say func(string)) error
}

// Admin shows who uses podnet in a cluster, and throws people out.
type Admin interface {
	// Top asks all gateways of a namespace who is there: once, or again and again
	// where every is not 0.
	Top(ctx context.Context, kube localapi.Kube, namespace string, every time.Duration, each func([]overview.Gateway) error) error
	// Revoke ends the sessions of a user, or that of a Peer. It returns those that
	// it ended, also with an error.
	Revoke(ctx context.Context, kube localapi.Kube, namespace, who string) ([]Revoked, error)
}

// Revoked is a session that was ended.
type Revoked struct {
	Peer   string `json:"peer"`
	User   string `json:"user"`
	Device string `json:"device"`
}

// InstallOptions are the flags of install.
type InstallOptions struct {
	Namespace        string
	Namespaced       bool // the gateway serves Namespace alone
	Image            string
	AgentImage       string
	PullPolicy       string
	ImagePullSecrets []string
	Replicas         int32
	UDPService       string
	NodePort         int32
	Advertise        []string
	PodCIDRs         []string
	ServiceCIDRs     []string
	STUN             []string
	DNSDomain        string
	Memory           string
	RequestMemory    string
	RequestCPU       string
	Limits           []string
	UserMetrics      bool
	NoNetworkPolicy  bool
	MetricsFrom      []string
	LogLevel         string
	Users, Groups    []string
}
