package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"

	"sigs.k8s.io/yaml"

	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
)

// InstallTo opens the cluster that kube points to and installs.
func InstallTo(ctx context.Context, kube localapi.Kube, o deploy.Options, say func(string), log *slog.Logger) error {
	c, err := opened(ctx, kube, say, log)
	if err != nil {
		return err
	}
	return c.Install(ctx, o, say)
}

// UninstallFrom opens the cluster that kube points to and uninstalls: what is for the
// whole cluster or, with a namespace, what is for that alone.
func UninstallFrom(ctx context.Context, kube localapi.Kube, namespace string, say func(string), log *slog.Logger) error {
	c, err := opened(ctx, kube, say, log)
	if err != nil {
		return err
	}
	return c.Uninstall(ctx, namespace, say)
}

func opened(ctx context.Context, kube localapi.Kube, say func(string), log *slog.Logger) (*Client, error) {
	c, err := Open(kube, log)
	if err != nil {
		return nil, err
	}
	// The caller's deadline is for the whole; that of a first answer is shorter.
	if c.config.ExecProvider == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	if err := c.Check(ctx); err != nil {
		return nil, err
	}
	say(c.User + " at " + c.Server)
	return c, nil
}

// Manifests prints what an install would apply, as yaml or json.
func Manifests(o deploy.Options, format string) ([]byte, error) {
	objects, err := deploy.Render(o)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if format == "json" {
		items := make([]any, len(objects))
		for i, u := range objects {
			items[i] = u.Object
		}
		e := json.NewEncoder(&out)
		e.SetIndent("", "  ")
		err := e.Encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
		return out.Bytes(), err
	}
	for _, u := range objects {
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			return nil, err
		}
		out.WriteString("---\n")
		out.Write(text)
	}
	return out.Bytes(), nil
}
