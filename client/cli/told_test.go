package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/version"
)

// Every command that prints things prints them in every form it says it knows.
func TestForms(t *testing.T) {
	m := newMachine(t)
	m.podnet("connect", "-n", "shop").want(t, 0)
	m.podnet("status", "-o", "name").want(t, 0)
	for command, forms := range map[string][]string{
		"status": answer.ListForms, "connect -n shop": answer.ListForms, "steer list": answer.ListForms, "expose list": answer.ListForms, "export list": answer.ListForms,
		"version": answer.FactForms, "doctor": answer.FactForms, "wait": answer.ListForms,
	} {
		for _, form := range forms {
			r := m.podnet(append(strings.Fields(command), "-o", form)...)
			r.want(t, 0)
			var v map[string]any
			err := json.Unmarshal([]byte(r.out), &v)
			switch {
			case form == answer.JSON && (err != nil || v["apiVersion"] != localapi.APIVersion || v["kind"] == ""):
				t.Errorf("%s -o json: %v in %s", command, err, r.out)
			case form == answer.YAML && !strings.Contains(r.out, "apiVersion: "+localapi.APIVersion+"\n"):
				t.Errorf("%s -o yaml:\n%s", command, r.out)
			case form == answer.Table && r.out != m.podnet(strings.Fields(command)...).out && command != "status" && command != "connect -n shop" && command != "wait":
				t.Errorf("%s -o table is not what %s prints", command, command)
			case (command == "status" || strings.HasPrefix(command, "connect")) && form == answer.Name && r.out != "kind\n":
				t.Errorf("%s -o name: %q", command, r.out)
			case command == "status" && form == answer.Wide && !strings.Contains(r.out, "SESSION"):
				t.Errorf("%s -o wide:\n%s", command, r.out)
			}
		}
	}
}

func TestQuietSaysWhatGoesWrongOnly(t *testing.T) {
	m := newMachine(t)
	for _, args := range []string{"connect -q -n shop", "namespace -q shop", "disconnect --quiet", "install -q", "uninstall -q"} {
		r := m.podnet(strings.Fields(args)...)
		if r.want(t, 0); r.out+r.stderr != "" {
			t.Errorf("%s says %q %q", args, r.out, r.stderr)
		}
	}
	m.environ = []string{"PODNET_QUIET=true"}
	m.fail = &localapi.Error{Code: localapi.CodeForbidden, Message: "no", Hint: "ask"}
	if r := m.podnet("connect"); r.stderr != "error: no\nhint: ask\n" {
		t.Errorf("%q", r.stderr)
	}
	m.podnet("status", "-q").want(t, exit.NotConnected, "not connected") // which was asked for
}

func TestProgressForPrograms(t *testing.T) {
	m := newMachine(t)
	r := m.podnet("connect", "--progress", "json")
	r.want(t, 0)
	var types []string
	for line := range strings.Lines(r.stderr) {
		var e localapi.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		types = append(types, string(e.Type))
	}
	if got := strings.Join(types, " "); got != "phase done ready" {
		t.Errorf("events %s", got)
	}
	if r := newMachine(t).podnet("connect", "--progress", "none"); r.stderr != "" {
		t.Errorf("%q", r.stderr)
	}
	if r := newMachine(t).podnet("connect", "-o", "json", "--progress", "plain"); !strings.Contains(r.stderr, "auth") {
		t.Errorf("%q", r.stderr)
	}
}

func TestVersionsThatDiffer(t *testing.T) {
	v := versions{Version: "1.4.0", Daemon: &localapi.Version{Version: "1.4.2"}, Gateways: []gatewayVersion{{"kind", "gw-0", "1.4.0"}, {"blue", "gw-0", "1.2.0"}, {"red", "gw-0", ""}}}
	var codes []string
	for _, w := range skews(v) {
		codes = append(codes, w.Code+" "+w.Connection+": "+w.Text)
	}
	want := "gateway-version blue: the gateway of blue is podnet 1.2.0, this is 1.4.0; gateway-version red: the gateway of red is older than those that say their version, this is 1.4.0"
	if got := strings.Join(codes, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	v.Daemon.Version, v.Gateways = "1.3.9", nil
	if got := skews(v); len(got) != 1 || got[0].Code != "daemon-version" {
		t.Errorf("%+v", got)
	}

	m := newMachine(t)
	m.podnet("connect").want(t, 0)
	var said versions
	r := m.podnet("version", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &said); err != nil || said.Kind != "Versions" || said.Version != version.Version || said.Daemon == nil || said.Gateways == nil || said.Warnings == nil {
		t.Errorf("%v in %s", err, r.out)
	}
}

func TestPluginOfKubectl(t *testing.T) {
	run := func(name string, args ...string) string {
		var out bytes.Buffer
		Run(t.Context(), Env{Env: caller.Env{In: strings.NewReader(""), Out: &out, Err: &out, Kube: newFakeKube(), Environ: []string{"PODNET_SOCKET=" + filepath.Join(t.TempDir(), "none")}}, Name: name}, args)
		return out.String()
	}
	for _, args := range []string{"--help", "connect --help", "steer stop", "namespace", "nonsense"} {
		plain, plugin := run("podnet", strings.Fields(args)...), run("kubectl-podnet.exe", strings.Fields(args)...)
		if strings.Contains(plain, "kubectl podnet ") && args != "connect --help" || !strings.Contains(plugin, "kubectl podnet ") {
			t.Errorf("%s: as podnet\n%s\nas plugin\n%s", args, plain, plugin)
		}
	}
	if help := run("kubectl-podnet", "connect", "--help"); strings.Contains(strings.ReplaceAll(help, "kubectl podnet", ""), "podnet connect") {
		t.Errorf("podnet by its own name in\n%s", help)
	}
}

// words are what a shell is told, without the descriptions.
func (m *machine) words(args ...string) string {
	m.t.Helper()
	r := m.podnet(append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	var all []string
	for _, l := range lines[:len(lines)-1] { // the last is how to use them
		word, _, _ := strings.Cut(l, "\t")
		all = append(all, word)
	}
	return strings.Join(all, " ")
}

// fakeCluster is what a kubeconfig and its cluster know.
type fakeCluster struct {
	fail  error
	deny  bool   // the cluster lists nothing
	asked string // the last context
}

func (f *fakeCluster) Contexts(localapi.Kube) ([]localapi.Context, error) {
	return []localapi.Context{{Name: "kind", User: "alice", Cluster: "one", Namespace: "home"}, {Name: "blue", User: "bob", Cluster: "two"}}, f.fail
}

func (f *fakeCluster) Names(_ context.Context, kube localapi.Kube, resource, namespace string) ([]string, error) {
	if f.deny {
		return nil, errors.New("forbidden")
	}
	f.asked = strings.Join(kube.Flags["context"], "")
	return map[string][]string{"namespaces": {"shop", "pay", "default"}, "services": {"web-" + namespace, "db"}, "deployments": {"web", "cart"}}[resource], f.fail
}

func TestWordsForAShell(t *testing.T) {
	m := newMachine(t)
	m.cluster = &fakeCluster{}
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
		if got := m.words(strings.Split(c.line, " ")...); got != c.want {
			t.Errorf("podnet %s: %q, want %q", c.line, got, c.want)
		}
	}
	if m.started != 0 {
		t.Error("a key has started a daemon")
	}
	m.cluster.deny = true
	if got := m.words("connect", "-n", ""); got != "home" {
		t.Errorf("who may not list namespaces is told of %q", got)
	}
	m.cluster.fail = errors.New("no such kubeconfig")
	for _, line := range []string{"connect --context ", "connect -n ", "steer svc/"} {
		if got := m.words(strings.Split(line, " ")...); got != "" {
			t.Errorf("podnet %s: %q where there is an error", line, got)
		}
	}
}

func TestWordsOfASession(t *testing.T) {
	m := newMachine(t)
	m.cluster = &fakeCluster{}
	m.podnet("connect", "-n", "shop", "-n", "pay", "--path", "udp").want(t, 0)
	m.podnet("steer", "deploy/web", "8080:3000", "--detach").want(t, 0)
	m.podnet("expose", "3000", "--as", "my-api", "--detach").want(t, 0)
	for _, c := range []struct{ line, want string }{
		{"disconnect ", "kind"},
		{"status --session ", ""}, // status has no such flag
		{"dns query web --session ", "kind"},
		{"namespace ", "pay shop"},
		{"expose stop ", "my-api"},
		{"connect --context blue -n ", "default pay shop"},
	} {
		if got := m.words(strings.Split(c.line, " ")...); got != c.want {
			t.Errorf("podnet %s: %q, want %q", c.line, got, c.want)
		}
	}
	if m.words("steer", "stop", "") == "" {
		t.Error("no rule to stop")
	}
	if m.cluster.asked != "blue" {
		t.Errorf("asked the cluster of %q", m.cluster.asked)
	}
}

func TestNoShellWaitsLong(t *testing.T) {
	begun := time.Now()
	env := &caller.Env{Kube: newFakeKube()}
	connect := &cobra.Command{Use: "connect"}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // shorter than a shell's patience
	defer cancel()
	connect.SetContext(ctx)
	if got, _ := completing(env, nil, func(q *question) []string { <-q.ctx.Done(); return []string{"late"} })(connect, nil, ""); len(got) > 0 {
		t.Errorf("words %q after %v", got, time.Since(begun))
	}
}
