package cluster

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// inText is a kubeconfig of two contexts, as text.
func inText(server string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: dev,
clusters: [{name: c, cluster: {server: "%s"}}],
users: [{name: alice, user: {token: s3cret}}, {name: bob, user: {token: t0ken}}],
contexts: [{name: dev, context: {cluster: c, user: alice, namespace: shop}}, {name: ops, context: {cluster: c, user: bob, namespace: pay}}]}`, server)
}

func openKube(t *testing.T, kube localapi.Kube) *Client {
	t.Helper()
	c, err := Open(kube, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKubeconfigInAVariable(t *testing.T) {
	text := inText("https://api.test:6443")
	encoded := base64.StdEncoding.EncodeToString([]byte(text))
	for what, value := range map[string]string{"as it is": text, "in base64": encoded, "in lines of base64": encoded[:76] + "\n" + encoded[76:] + "\n"} {
		env := []string{localapi.KubeconfigData + "=" + value, "KUBECONFIG=/nonexistent"}
		c := openKube(t, localapi.Kube{Env: env})
		if c.Context != "dev" || c.Namespace != "shop" || c.Server != "https://api.test:6443" || c.config.BearerToken != "s3cret" {
			t.Errorf("%s: %+v", what, c.Identity)
		}
		c = openKube(t, localapi.Kube{Env: env, Flags: map[string][]string{"context": {"ops"}, "as": {"carol"}, "as-group": {"a", "b"}, "as-user-extra": {"team=x"}, "server": {"https://other.test"}}})
		if i := c.config.Impersonate; c.Context != "ops" || c.Namespace != "pay" || c.Server != "https://other.test" || i.UserName != "carol" || len(i.Groups) != 2 || i.Extra["team"][0] != "x" {
			t.Errorf("%s, with flags: %+v %+v", what, c.Identity, i)
		}
	}
	file := kubeconfig(t, "https://file.test", "")
	if c := openKube(t, localapi.Kube{Env: []string{localapi.KubeconfigData + "=" + text}, Flags: map[string][]string{"kubeconfig": {file}}}); c.Server != "https://file.test" {
		t.Errorf("--kubeconfig does not win: %+v", c.Identity)
	}
}

// TestBadKubeconfigInAVariable never shows what is in it.
func TestBadKubeconfigInAVariable(t *testing.T) {
	for value, says := range map[string]string{
		"s3cret":                            "neither YAML nor base64",
		"token: s3cret: more: {":            "no kubeconfig",
		"{users: [{name: a, user: s3cret}]": "no kubeconfig",
		"apiVersion: v1\nkind: Config\n":    "has none",
		strings.Replace(inText("https://a.test"), "token: s3cret", "client-key: keys/s3cret.pem", 1):  "--flatten",
		strings.Replace(inText("https://a.test"), "current-context: dev", "current-context: mars", 1): "specified context: mars",
	} {
		_, err := Open(localapi.Kube{Env: []string{localapi.KubeconfigData + "=" + value}}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), localapi.KubeconfigData) || strings.Contains(strings.ReplaceAll(err.Error(), "keys/s3cret.pem", ""), "s3cret") {
			t.Errorf("%q: %v", value, err)
		}
		if e := httpjson.FromError(err); e.Code != localapi.CodeCredentials || e.Hint == "" {
			t.Errorf("%q: code %s, hint %q", value, e.Code, e.Hint)
		}
	}
}

// TestInAPod has what Kubernetes gives every pod, and no kubeconfig.
func TestInAPod(t *testing.T) {
	was := mount
	mount = t.TempDir()
	t.Cleanup(func() { mount = was })
	for name, text := range map[string]string{"token": "pod's", "namespace": "ci\n"} {
		if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	api := httptest.NewTLSServer(nil)
	t.Cleanup(api.Close)
	ca := filepath.Join(mount, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"KUBECONFIG=/nonexistent", "KUBERNETES_SERVICE_HOST=fd00:10:96::1", "KUBERNETES_SERVICE_PORT=443"}
	c := openKube(t, localapi.Kube{Env: env})
	if c.Context != InCluster || c.Namespace != "ci" || c.Server != "https://[fd00:10:96::1]:443" || c.config.BearerTokenFile != filepath.Join(mount, "token") || c.config.CAFile != ca {
		t.Errorf("%+v, token of %s", c.Identity, c.config.BearerTokenFile)
	}
	file := kubeconfig(t, "https://file.test", "")
	for what, kube := range map[string]localapi.Kube{
		"a kubeconfig":          {Env: append([]string{"KUBECONFIG=" + file}, env[1:]...)},
		"one named by the flag": {Env: env, Flags: map[string][]string{"kubeconfig": {file}}},
		"one in a variable":     {Env: append(env, localapi.KubeconfigData+"="+inText("https://file.test"))},
	} {
		if c := openKube(t, kube); c.Server != "https://file.test" {
			t.Errorf("%s does not win over the ServiceAccount: %+v", what, c.Identity)
		}
	}
	if err := os.Remove(filepath.Join(mount, "token")); err != nil {
		t.Fatal(err)
	}
	var none *KubeconfigError
	if _, err := Open(localapi.Kube{Env: env}, slog.New(slog.DiscardHandler)); !errors.As(err, &none) {
		t.Errorf("without a token: %v", err)
	}
}

func TestTokenFile(t *testing.T) {
	f := newFakeAPI(t)
	file := filepath.Join(t.TempDir(), "token")
	kube := localapi.Kube{Flags: map[string][]string{"kubeconfig": {kubeconfig(t, f.URL, "")}, "token-file": {file}}}
	for _, says := range []string{"no such file", "is empty"} {
		if _, err := Open(kube, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), says) || httpjson.FromError(err).Code != localapi.CodeCredentials {
			t.Errorf("want %q: %v", says, err)
		}
		if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := openKube(t, kube); c.config.BearerTokenFile != file || c.config.BearerToken != "" {
		t.Errorf("token %q, file %q", c.config.BearerToken, c.config.BearerTokenFile)
	}
}
