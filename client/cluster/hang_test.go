package cluster

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

// TestPluginThatHangs waits for nobody's login longer than its caller does: whoever
// connects has to be able to give up, and a lease to be renewed once the plugin is well.
func TestPluginThatHangs(t *testing.T) {
	f := newFakeAPI(t)
	secure := httptest.NewTLSServer(f.Config.Handler)
	defer secure.Close()
	dir := t.TempDir()
	plugin, release := filepath.Join(dir, "login"), filepath.Join(dir, "release")
	script := `#!/bin/sh
while ! test -e "` + release + `"; do sleep 0.02; done
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}'
`
	if err := os.WriteFile(plugin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	file := kubeconfig(t, secure.URL, "{exec: {apiVersion: client.authentication.k8s.io/v1, command: "+plugin+", interactiveMode: Never}}")
	c, err := Open(localapi.Kube{Flags: map[string][]string{"kubeconfig": {file}, "insecure-skip-tls-verify": {"true"}}, Env: []string{"PATH=/usr/bin:/bin"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*time.Second, func() { _ = os.WriteFile(release, nil, 0o600) })
	for what, call := range map[string]func(context.Context) error{
		"a call": c.Check,
		"a stream": func(ctx context.Context) error {
			_, err := c.DialPod(ctx, "podnet-system", "podnet-gateway-0", 1)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		err = call(ctx)
		cancel()
		if took := time.Since(began); err == nil || took > time.Second {
			t.Errorf("%s gave up after %v: %v", what, took, err)
		}
		explained(t, err, localapi.CodeUnreachable, "no answer in time")
	}
	if err := c.Check(t.Context()); err != nil {
		t.Errorf("once it has ended: %v", err)
	}
}
