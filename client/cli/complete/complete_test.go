package complete_test

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"podnet.dev/client/cli/fakemachine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shellWords are what a shell is told, without the descriptions.
func shellWords(t *testing.T, m *fakemachine.Machine, args ...string) string {
	t.Helper()
	r := m.Podnet(append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSpace(r.Out), "\n")
	var all []string
	for _, l := range lines[:len(lines)-1] { // the last is how to use them
		word, _, _ := strings.Cut(l, "\t")
		all = append(all, word)
	}
	return strings.Join(all, " ")
}

func TestWordsForAShell(t *testing.T) {
	m := fakemachine.New(t)
	m.Cluster = &fakemachine.Cluster{}
	for _, c := range []struct{ line, want string }{
		{"connect --context ", "blue kind"},
		{"connect --context k", "kind"},
		{"install --user ", "alice bob"},
		{"connect -n ", "default pay shop"},
		{"connect --namespace=s", "shop"},
		{"connect --path ", "apiserver auto udp"},
		{"status -o ", "table wide json yaml name"},
		{"map -o ", "table json yaml"},
		{"connect --progress ", "auto plain json none"},
		{"steer s", "stop sts/ svc/"},
		{"steer -n shop svc/", "svc/db svc/web-shop"},
		{"steer deploy/w", "deploy/web"},
		{"exec --as deploy/c", "deploy/cart"},
		{"expose 3000 --as ", ""},
		{"completion ", "bash zsh fish powershell"},
		{"disconnect ", ""},
		{"steer stop ", ""},
		{"doctor ", ""},
	} {
		if got := shellWords(t, m, strings.Split(c.line, " ")...); got != c.want {
			t.Errorf("podnet %s: %q, want %q", c.line, got, c.want)
		}
	}
	if m.Started != 0 {
		t.Error("a key has started a daemon")
	}
	m.Cluster.Deny = true
	if got := shellWords(t, m, "connect", "-n", ""); got != "home" {
		t.Errorf("who may not list namespaces is told of %q", got)
	}
	m.Cluster.Fail = errors.New("no such kubeconfig")
	for _, line := range []string{"connect --context ", "connect -n ", "steer svc/"} {
		if got := shellWords(t, m, strings.Split(line, " ")...); got != "" {
			t.Errorf("podnet %s: %q where there is an error", line, got)
		}
	}
}

func TestWordsOfASession(t *testing.T) {
	m := fakemachine.New(t)
	m.Cluster = &fakemachine.Cluster{}
	m.Podnet("connect", "-n", "shop", "-n", "pay", "--path", "udp").Want(t, 0)
	m.Podnet("steer", "deploy/web", "8080:3000", "--detach").Want(t, 0)
	m.Podnet("expose", "3000", "--as", "my-api", "--detach").Want(t, 0)
	for _, c := range []struct{ line, want string }{
		{"disconnect ", "kind"},
		{"status --session ", ""}, // status has no such flag
		{"dns query web --session ", "kind"},
		{"namespace ", "pay shop"},
		{"expose stop ", "my-api"},
		{"connect --context blue -n ", "default pay shop"},
	} {
		if got := shellWords(t, m, strings.Split(c.line, " ")...); got != c.want {
			t.Errorf("podnet %s: %q, want %q", c.line, got, c.want)
		}
	}
	if shellWords(t, m, "steer", "stop", "") == "" {
		t.Error("no rule to stop")
	}
	if m.Cluster.Asked != "blue" {
		t.Errorf("asked the cluster of %q", m.Cluster.Asked)
	}
}
