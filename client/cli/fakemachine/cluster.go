package fakemachine

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"podnet.dev/client/cli/admin"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/overview"
)

// Kube are connection flags of kubectl's.
type Kube struct{ set *pflag.FlagSet }

// NewKube are some of them.
func NewKube() Kube {
	f := Kube{pflag.NewFlagSet("kube", pflag.ContinueOnError)}
	for _, name := range []string{"context", "user", "as", "as-group"} {
		f.set.String(name, "", "")
	}
	return f
}

// AddTo and Kube make it a caller.KubeFlags.
func (f Kube) AddTo(to *pflag.FlagSet) { to.AddFlagSet(f.set) }

func (f Kube) Kube([]string) (localapi.Kube, error) {
	k := localapi.Kube{Flags: map[string][]string{}}
	f.set.Visit(func(fl *pflag.Flag) { k.Flags[fl.Name] = []string{fl.Value.String()} })
	f.set.VisitAll(func(fl *pflag.Flag) {
		if fl.Changed {
			k.Flags[fl.Name] = []string{fl.Value.String()}
		}
	})
	return k, nil
}

// Installer remembers what it was asked for.
type Installer struct {
	Got  admin.InstallOptions
	Gone string // the namespace of an uninstall
	Fail error
}

func (f *Installer) Render(o admin.InstallOptions, format string) ([]byte, error) {
	return []byte(format + " of " + o.Image + "\n"), nil
}

func (f *Installer) Install(ctx context.Context, _ localapi.Kube, o admin.InstallOptions, say func(string)) error {
	f.Got = o
	say("applied everything")
	if f.Fail == nil {
		return nil
	}
	if errors.Is(f.Fail, context.DeadlineExceeded) {
		<-ctx.Done()
	}
	return f.Fail
}

func (f *Installer) Uninstall(_ context.Context, _ localapi.Kube, namespace string, _ func(string)) error {
	f.Gone = namespace
	return f.Fail
}

// Admin is a cluster's gateways.
type Admin struct {
	Looks     [][]overview.Gateway
	Every     time.Duration
	Namespace string
	Who       string
	Ended     []admin.Revoked
	Fail      error
}

func (f *Admin) Top(_ context.Context, _ localapi.Kube, namespace string, every time.Duration, each func([]overview.Gateway) error) error {
	f.Namespace, f.Every = namespace, every
	for _, l := range f.Looks {
		if err := each(l); err != nil || every == 0 {
			return err
		}
	}
	return f.Fail
}

func (f *Admin) Revoke(_ context.Context, _ localapi.Kube, namespace, who string) ([]admin.Revoked, error) {
	f.Namespace, f.Who = namespace, who
	return f.Ended, f.Fail
}

// autostart is on or off.
type autostart struct{ on bool }

func (f *autostart) On() (bool, error) { return f.on, nil }
func (f *autostart) Set(_ context.Context, on bool) (string, error) {
	f.on = on
	return "", nil
}

// Cluster is what a kubeconfig and its cluster know.
type Cluster struct {
	Fail  error
	Deny  bool   // the cluster lists nothing
	Asked string // the last context
}

func (f *Cluster) Contexts(localapi.Kube) ([]localapi.Context, error) {
	return []localapi.Context{{Name: "kind", User: "alice", Cluster: "one", Namespace: "home"}, {Name: "blue", User: "bob", Cluster: "two"}}, f.Fail
}

func (f *Cluster) Names(_ context.Context, kube localapi.Kube, resource, namespace string) ([]string, error) {
	if f.Deny {
		return nil, errors.New("forbidden")
	}
	f.Asked = strings.Join(kube.Flags["context"], "")
	return map[string][]string{"namespaces": {"shop", "pay", "default"}, "services": {"web-" + namespace, "db"}, "deployments": {"web", "cart"}}[resource], f.Fail
}
