package settings_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/config"
	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const configHead = "apiVersion: podnet/v1\nkind: Config\n"

// configured is a machine whose user has a configuration, and the file's name.
func configured(t *testing.T, text string) (*fakemachine.Machine, string) {
	t.Helper()
	m := fakemachine.New(t)
	home := t.TempDir()
	m.Environ = append(m.Environ, "HOME="+home)
	name := filepath.Join(home, ".config", "podnet", "config.yaml")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		if err := os.WriteFile(name, []byte(configHead+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m, name
}

// TestNearestWordCounts: flag, variable, profile, project, user, in this order.
func TestNearestWordCounts(t *testing.T) {
	m, _ := configured(t, `defaults: {path: udp, namespace: [shop, pay], lease: 2m, addresses: virtual}
profiles:
- name: lab
  connect: {context: blue, path: apiserver, namespaces: [ops], as: deploy/web, primary: true}
- name: wide
  connect: {allNamespaces: true}
`)
	m.Where = func(k localapi.Kube) (string, string, error) {
		name := strings.Join(k.Flags["context"], "")
		return name, "https://" + name, nil
	}
	got := func(args ...string) localapi.ConnectRequest {
		t.Helper()
		m.Podnet(append([]string{"connect"}, args...)...).Want(t, exit.OK)
		req := m.Last
		m.Podnet("disconnect").Want(t, exit.OK)
		return req
	}
	if r := got(); r.Path != "udp" || !reflect.DeepEqual(r.Namespaces, []string{"shop", "pay"}) || r.LeaseSeconds != 120 || r.Addresses != "virtual" {
		t.Errorf("the user's file: %+v", r)
	}
	project := t.TempDir()
	if err := os.WriteFile(filepath.Join(project, config.ProjectFile), []byte(configHead+"defaults: {path: auto, context: dev}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(project)
	if r := got(); r.Path != "auto" || r.LeaseSeconds != 120 || r.Kube.Flags["context"][0] != "dev" {
		t.Errorf("in a project: %+v", r)
	}
	r := got("lab")
	if r.Path != "apiserver" || !reflect.DeepEqual(r.Namespaces, []string{"ops"}) || r.LeaseSeconds != 120 || r.As != "deploy/web" || !r.Primary || r.Name != "lab" || r.Kube.Flags["context"][0] != "blue" || r.Kube.Flags["as"] != nil {
		t.Errorf("by a profile: %+v", r)
	}
	if r := got("wide"); !r.AllNamespaces || len(r.Namespaces) > 0 {
		t.Errorf("a profile of every namespace beside a default of some: %+v", r)
	}
	m.Environ = append(m.Environ, "PODNET_PATH=udp")
	if r := got("lab"); r.Path != "udp" {
		t.Errorf("with a variable: %+v", r)
	}
	if r := got("lab", "--path", "auto", "-n", "pay", "--name", "other"); r.Path != "auto" || !reflect.DeepEqual(r.Namespaces, []string{"pay"}) || r.Name != "other" {
		t.Errorf("with flags: %+v", r)
	}
	if r := got("-A"); !r.AllNamespaces || len(r.Namespaces) > 0 {
		t.Errorf("every namespace beside a default of some: %+v", r)
	}
	m.Podnet("connect", "red").Want(t, exit.Usage, "there is no profile red", "there are lab, wide; podnet connect -n red opens a namespace")
	m.Podnet("connect", "lab", "wide").Want(t, exit.Usage, "one profile, not 2")
}

// TestRequestIsThatOfTheCommandLine: who has no command line asks for the same.
func TestRequestIsThatOfTheCommandLine(t *testing.T) {
	m, name := configured(t, `defaults: {path: udp, namespace: shop, lease: 4m, addresses: virtual, gateway-namespace: net, also-route: [10.20.0.0/16], also-domain: corp.internal, never-route: 10.9.0.0/16, reconnect: true, context: dev, ephemeral: true}
profiles:
- name: lab
  connect: {context: blue, allNamespaces: true, reconnect: true, leaseSeconds: 90}
`)
	c, err := config.Store{User: name}.Load()
	if err != nil {
		t.Fatal(err)
	}
	same := func(want localapi.ConnectRequest, err error, args ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		m.Podnet(append([]string{"connect"}, args...)...).Want(t, exit.OK)
		m.Podnet("disconnect").Want(t, exit.OK)
		got := m.Last
		got.Kube.Env, want.Kube.Env = nil, nil
		if want.Name == "" {
			got.Name = "" // the daemon has made one
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("connect %v asks for %+v, and without a command line it is %+v", args, got, want)
		}
	}
	r, err := c.Request(localapi.Kube{})
	same(r, err)
	r, err = c.ProfileRequest("lab", nil)
	same(r, err, "lab")
	// Every flag that says what is asked for is known to both.
	var req localapi.ConnectRequest
	f := pflag.NewFlagSet("connect", pflag.ContinueOnError)
	flags.Connect(f, nil, &req, new(time.Duration))
	f.VisitAll(func(f *pflag.Flag) {
		if c.Defaults[f.Name].Values == nil && f.Name != "all-namespaces" {
			t.Errorf("--%s is not tried", f.Name)
		}
	})
}

func TestBrokenConfiguration(t *testing.T) {
	m, name := configured(t, "defaults:\n  path: pigeon\n")
	for _, args := range [][]string{{"connect"}, {"status"}, {"config", "view"}, {"config", "get", "defaults.path"}, {"profile", "list"}} {
		m.Podnet(args...).Want(t, exit.Usage, name+`:4: defaults.path: path "pigeon": want auto, udp, apiserver`, "hint: ")
	}
	if m.Started != 0 {
		t.Error("a daemon was started")
	}
	m.Podnet("disconnect").Want(t, exit.OK) // which it is in nobody's way
	m.Podnet("version").Want(t, exit.OK)
	m.Podnet("config", "path").Want(t, exit.OK, name)
	m.Podnet("config", "set", "defaults.path", "udp").Want(t, exit.OK)
	m.Podnet("config", "get", "defaults.path").Want(t, exit.OK, "udp")
	for text, says := range map[string]string{
		"{colour: red}": "no flag of podnet's", "{lease: [1m, 2m]}": "want one value, not 2", "{lease: 1h}": "1m0s to 15m0s",
		"{namespace: [a, B]}": `"B" is no name`, "{also-route: 16.0.0.0/4}": "wider than /8", "{all-namespaces: maybe}": "invalid", "{watch: maybe}": "is no bool",
	} {
		if err := os.WriteFile(name, []byte(configHead+"defaults: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Podnet("status").Want(t, exit.Usage, name+":3: ", says)
	}
}

func TestConfigCommands(t *testing.T) {
	m, name := configured(t, "")
	m.Podnet("config", "get", "defaults.path").Want(t, exit.Generic, "no file sets defaults.path")
	m.Podnet("config", "set", "defaults.namespace", "shop", "pay").Want(t, exit.OK)
	m.Podnet("config", "set", "tray.notify", "false").Want(t, exit.OK)
	m.Podnet("config", "set", "defaults.path", "pigeon").Want(t, exit.Usage, "want auto, udp, apiserver")
	m.Podnet("config", "set", "colour", "red").Want(t, exit.Usage, "is no key")
	m.Podnet("config", "set", "defaults.path").Want(t, exit.Usage, "podnet config set defaults.path udp")
	if r := m.Podnet("config", "get", "defaults.namespace"); r.Out != "shop\npay\n" {
		t.Errorf("get: %q", r.Out)
	}
	m.Podnet("profile", "save", "staging", "--context", "blue", "-n", "shop", "--lease", "2m", "--as", "deploy/web", "--auto-connect").Want(t, exit.OK)
	m.Podnet("profile", "save", "Blue").Want(t, exit.Usage, "is no name for a profile")
	m.Podnet("profile", "save", "x", "--path", "pigeon").Want(t, exit.Usage, "want auto")
	m.Podnet("profile", "list").Want(t, exit.OK, "NAME     CONTEXT  NAMESPACES  AUTO\nstaging  blue     shop        yes\n")
	var list localapi.ProfileList
	want := localapi.Profile{Name: "staging", AutoConnect: true, Connect: localapi.Words{Context: "blue", Namespaces: []string{"shop"}, LeaseSeconds: 120, As: "deploy/web"}}
	if err := json.Unmarshal([]byte(m.Podnet("profile", "list", "-o", "json").Out), &list); err != nil || len(list.Profiles) != 1 || !reflect.DeepEqual(list.Profiles[0], want) {
		t.Errorf("%+v, %v, want %+v", list, err, want)
	}
	const view = `apiVersion: podnet/v1
defaults:
  namespace:
  - shop
  - pay
kind: Config
profiles:
- autoConnect: true
  connect:
    as: deploy/web
    context: blue
    leaseSeconds: 120
    namespaces:
    - shop
  name: staging
tray:
  notify: false
`
	if r := m.Podnet("config", "view"); r.Code != exit.OK || !strings.HasPrefix(r.Out, view+"# defaults.namespace: "+name+":4\n") {
		t.Errorf("view:\n%s", r.Out)
	}
	m.Podnet("config", "unset", "defaults.namespace").Want(t, exit.OK)
	m.Podnet("config", "unset", "defaults.namespace").Want(t, exit.Generic, "does not set")
	m.Podnet("profile", "remove", "staging").Want(t, exit.OK)
	m.Podnet("profile", "remove", "staging").Want(t, exit.Generic, "no profile staging")
	m.Podnet("profile", "list").Want(t, exit.OK, "there are none")
	if r := m.Podnet("config", "path", "--all"); r.Out != name+"\n" {
		t.Errorf("path --all: %q", r.Out)
	}
}
