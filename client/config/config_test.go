package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"podnet.dev/client/localapi"
)

const head = "apiVersion: podnet/v1\nkind: Config\n"

const whole = head + `defaults:
  path: udp # the office lets it through
  namespace: [shop, pay]
  lease: 2m
  reconnect: true
profiles:
  - name: staging
    autoConnect: true
    connect:
      context: blue
      namespaces: [shop]
      leaseSeconds: 120
      alsoRoutes: [10.20.0.0/16]
  - name: lab
tray:
  notify: false
`

func put(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFileIsReadWhole(t *testing.T) {
	s := Store{User: put(t, filepath.Join(t.TempDir(), "config.yaml"), whole)}
	c, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	at := func(line int) Place { return Place{s.User, line} }
	want := Config{
		Defaults: map[string]Default{"path": {[]string{"udp"}, at(4)}, "namespace": {[]string{"shop", "pay"}, at(5)}, "lease": {[]string{"2m"}, at(6)}, "reconnect": {[]string{"true"}, at(7)}},
		Profiles: []Profile{{localapi.Profile{Name: "lab"}, at(16)}, {localapi.Profile{Name: "staging", AutoConnect: true, Connect: localapi.Words{
			Context: "blue", Namespaces: []string{"shop"}, LeaseSeconds: 120, Beyond: localapi.Beyond{AlsoRoutes: []string{"10.20.0.0/16"}}}}, at(9)}},
		Tray: Tray{false, at(18)},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if c.Flag("path") != "udp" || c.Flag("namespace") != "" || c.Flag("context") != "" {
		t.Error("Flag")
	}
}

func TestNearerFileIsHeeded(t *testing.T) {
	dir := t.TempDir()
	s := Store{
		System: put(t, filepath.Join(dir, "etc"), head+"defaults: {path: apiserver, lease: 5m, context: prod}\nprofiles: [{name: lab, connect: {context: old}}, {name: ops}]\ntray: {notify: false}\n"),
		User:   put(t, filepath.Join(dir, "home"), head+"defaults: {path: udp, lease: 4m}\nprofiles: [{name: lab, connect: {context: new}}]\n"),
	}
	put(t, filepath.Join(dir, "code", ProjectFile), head+"defaults: {path: auto}\n")
	below := filepath.Join(dir, "code", "a", "b")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := s.LoadAt(below)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Flag("path") + " " + c.Flag("lease") + " " + c.Flag("context"); got != "auto 4m prod" {
		t.Errorf("defaults %q", got)
	}
	if p, ok := c.Profile("lab"); !ok || p.Connect.Context != "new" || len(c.Profiles) != 2 {
		t.Errorf("profiles %+v", c.Profiles)
	}
	if c.Tray.Notify || c.Tray.NotifyFrom.File != s.System {
		t.Errorf("tray %+v", c.Tray)
	}
	if c, err := s.Load(); err != nil || c.Flag("path") != "udp" {
		t.Errorf("outside of the project: %q, %v", c.Flag("path"), err)
	}
	if c, err := (Store{User: filepath.Join(dir, "none")}).Load(); err != nil || !c.Tray.Notify {
		t.Errorf("no file at all: %+v, %v", c, err)
	}
}

func TestWrongFilesSayWhere(t *testing.T) {
	check := func(flag string, values []string) error {
		if flag != "path" || values[0] != "udp" {
			return errors.New("no such flag")
		}
		return nil
	}
	for text, want := range map[string]string{
		"a: [":                                                            "c:1: did not find",
		"- a\n":                                                           "c:1: the file: want keys with values",
		"kind: Config\n":                                                  "c:1: want apiVersion: podnet/v1 and kind: Config",
		"apiVersion: podnet/v2\nkind: Config\n":                           `not "podnet/v2" and "Config"`,
		head + "colour: red\n":                                            "c:3: colour: no such key; there are apiVersion, defaults, kind, profiles, tray",
		head + "tray: {notify: false, sound: 1}":                          "c:3: tray.sound: no such key",
		head + "tray:\n  notify: 'true'\n":                                "c:4: tray.notify: want true or false",
		head + "tray:\n  notify: yes\n":                                   "c:4: tray.notify: want true or false",
		head + "defaults:\n  path: {}\n":                                  "c:4: defaults.path: want a value",
		head + "defaults:\n  path:\n":                                     "c:4: defaults.path: want a value",
		head + "defaults:\n  path: []\n":                                  "c:4: defaults.path: there is nothing",
		head + "defaults:\n  path: ip\n":                                  "c:4: defaults.path: no such flag",
		head + "defaults:\n  path: udp\n  path: udp\n":                    "c:5: defaults.path is there already, in line 4",
		head + "profiles: {}\n":                                           "c:3: profiles: want a list",
		head + "profiles:\n- connect: {}\n":                               `c:4: "" is no name for a profile`,
		head + "profiles:\n- name: a\n- name: a\n":                        "c:5: the profile a is there already, in line 4",
		head + "profiles:\n- name: a\n  connect:\n    path: pigeon\n":     `c:4: path "pigeon": want auto`,
		head + "profiles:\n- name: a\n  connect:\n    leaseSeconds: 2m\n": "c:6: profiles.connect.leaseSeconds: want a number",
		head + "profiles:\n- name: a\n  connect:\n    namespaces: [7]\n":  "c:6: profiles.connect.namespaces: want text",
		head + "---\n" + head:                                             "more than one document",
		head + "1: 2\n":                                                   "c:3: 1: want text for a key",
		head + "defaults: &a {}\ntray: *a\n":                              "c:4: tray: anchors",
		strings.Repeat("#", maxSize+1):                                    "larger than",
	} {
		_, err := parse("c", []byte(text), user, check)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || e.Hint() == "" {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "# nothing\n", head, head + "defaults:\n", head + "defaults: {path: udp}\n"} {
		if _, err := parse("c", []byte(text), user, check); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestProjectMayNotTakeCredentials: whoever clones code and connects there gives
// nothing away and runs nothing of it.
func TestProjectMayNotTakeCredentials(t *testing.T) {
	for _, text := range []string{"defaults: {kubeconfig: ./theirs}", "defaults: {server: 'https://evil'}", "defaults: {insecure-skip-tls-verify: true}", "defaults: {socket: /tmp/s}",
		"profiles: [{name: a}]", "tray: {notify: false}"} {
		if _, err := parse("c", []byte(head+text), project, nil); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
	dir := t.TempDir()
	name := put(t, filepath.Join(dir, ProjectFile), head+"defaults: {path: udp}\n")
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to somebody else")
	}
	if Project(dir) != name {
		t.Error("our own is not found")
	}
	if err := os.Chown(name, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if got := Project(dir); got != "" {
		t.Errorf("somebody else's %s is heeded", got)
	}
}

func TestEditsKeepTheRest(t *testing.T) {
	s := Store{User: put(t, filepath.Join(t.TempDir(), "podnet", "config.yaml"), "# mine\n\n"+whole)}
	for _, err := range []error{
		s.Set("defaults.path", "auto"), s.Set("defaults.also-domain", "a.internal", "b.internal"), s.Set("tray.notify", "true"), s.Unset("defaults.lease"),
		s.SaveProfile(localapi.Profile{Name: "lab", Connect: localapi.Words{Path: "udp"}}), s.SaveProfile(localapi.Profile{Name: "true"}), s.RemoveProfile("staging"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(s.User)
	if err != nil {
		t.Fatal(err)
	}
	want := "# mine\n\n" + head + `defaults:
  path: auto
  namespace: [shop, pay]
  reconnect: true
  also-domain: [a.internal, b.internal]
profiles:
  - name: lab
    connect:
      path: udp
  - name: "true"
    connect: {}
tray:
  notify: true
`
	if string(raw) != want {
		t.Errorf("got\n%s\nwant\n%s", raw, want)
	}
	for what, err := range map[string]error{
		"a key that is none": s.Set("colour", "red"), "a profile's key": s.Set("profiles.lab", "x"), "a value that is none": s.Set("tray.notify", "maybe"),
		"unset what is not set": s.Unset("defaults.lease"), "remove what is not there": s.RemoveProfile("staging"), "an unknown key of the tray": s.Set("tray.sound", "1"),
	} {
		var e *localapi.Error
		if !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after, err := os.ReadFile(s.User); err != nil || string(after) != want {
		t.Errorf("an edit that failed has changed the file to\n%s (%v)", after, err)
	}
}

func TestFirstEditMakesAPrivateFile(t *testing.T) {
	home := t.TempDir()
	s := Store{User: userFile("linux", []string{"HOME=" + home})}
	if err := s.Set("defaults.reconnect", "true"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{s.User: 0o600, filepath.Dir(s.User): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if raw, _ := os.ReadFile(s.User); string(raw) != head+"defaults:\n  reconnect: true\n" {
		t.Errorf("%s", raw)
	}
	// A file of comments keeps them, and a link stays one.
	put(t, filepath.Join(home, "dotfiles"), "# to be filled in")
	if err := errors.Join(os.Remove(s.User), os.Symlink(filepath.Join(home, "dotfiles"), s.User), s.Set("defaults.path", "udp")); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(filepath.Join(home, "dotfiles")); string(raw) != "# to be filled in\n"+head+"defaults:\n  path: udp\n" {
		t.Errorf("%s", raw)
	}
}

func TestUserFile(t *testing.T) {
	for want, c := range map[string]struct {
		goos string
		env  []string
	}{
		"/home/ada/.config/podnet/config.yaml":                      {"linux", []string{"HOME=/home/ada", "XDG_CONFIG_HOME=relative"}},
		"/xdg/podnet/config.yaml":                                   {"linux", []string{"HOME=/home/ada", "XDG_CONFIG_HOME=/xdg"}},
		"/Users/ada/Library/Application Support/podnet/config.yaml": {"darwin", []string{"HOME=/Users/ada"}},
		"/c/Users/ada/AppData/Roaming/podnet/config.yaml":           {"windows", []string{"AppData=/c/Users/ada/AppData/Roaming"}},
		"": {"linux", nil},
	} {
		if got := userFile(c.goos, c.env); got != want {
			t.Errorf("%s %v: %q, want %q", c.goos, c.env, got, want)
		}
	}
}

func TestRequest(t *testing.T) {
	c, err := Store{User: put(t, filepath.Join(t.TempDir(), "c"), head+`defaults: {path: udp, namespace: [shop], lease: 2m, reconnect: true, context: prod, output: json}
profiles:
- name: staging
  connect: {context: blue, allNamespaces: true, path: apiserver}
`)}.Load()
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Request(localapi.Kube{Env: []string{"A=b"}})
	want := localapi.ConnectRequest{Namespaces: []string{"shop"}, Path: "udp", LeaseSeconds: 120, Reconnect: true, Addresses: "auto", Device: "auto", GatewayNamespace: "podnet-system",
		Kube: localapi.Kube{Flags: map[string][]string{"context": {"prod"}}, Env: []string{"A=b"}}}
	if err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v\nwant %+v", r, err, want)
	}
	r, err = c.ProfileRequest("staging", nil)
	want = localapi.ConnectRequest{Name: "staging", AllNamespaces: true, Path: "apiserver", LeaseSeconds: 120, Reconnect: true, Addresses: "auto", Device: "auto", GatewayNamespace: "podnet-system",
		Kube: localapi.Kube{Flags: map[string][]string{"context": {"blue"}}}}
	if err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v\nwant %+v", r, err, want)
	}
	if _, err := c.ProfileRequest("red", nil); err == nil {
		t.Error("a profile that is not there")
	}
}

// TestSchema: what the schema knows is what is read.
func TestSchema(t *testing.T) {
	raw, err := os.ReadFile("../../docs/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Properties map[string]*node
		Items      *node
		Closed     json.RawMessage `json:"additionalProperties"`
	}
	var root node
	if err := json.Unmarshal(raw, &root); err != nil {
		t.Fatal(err)
	}
	keys := func(n *node) []string {
		var all []string
		for k := range n.Properties {
			all = append(all, k)
		}
		slices.Sort(all)
		return all
	}
	fields := func(v any) []string {
		var all []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" && key != "-" {
				all = append(all, key)
			}
		}
		slices.Sort(all)
		return all
	}
	one := root.Properties["profiles"].Items
	for what, c := range map[string]struct {
		n *node
		v any
	}{"the file": {&root, file{}}, "a profile": {one, profile{}}, "connect": {one.Properties["connect"], localapi.Words{}}, "tray": {root.Properties["tray"], tray{}}} {
		if got, want := keys(c.n), fields(c.v); !slices.Equal(got, want) || string(c.n.Closed) != "false" {
			t.Errorf("%s: the schema has %v, open %s; read are %v", what, got, c.n.Closed, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add("a: *a")
	f.Add("? [a]\n: b")
	f.Add(head + "profiles: [{name: a, connect: {leaseSeconds: 99999999999}}]")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parse("c", []byte(text), user, nil)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Line < 1) {
			t.Fatalf("an error without a line: %v", err)
		}
		if err != nil {
			return
		}
		// What is read can be changed, and is then what it was and the change.
		d, err := open("c", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.set("defaults.path", []string{"udp"}); err != nil {
			t.Fatal(err)
		}
		raw, err := d.bytes()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse("c", raw, user, nil)
		if err != nil || again.Defaults["path"].Values[0] != "udp" || len(again.Profiles) != len(parsed.Profiles) {
			t.Fatalf("%q became %q: %v", text, raw, err)
		}
	})
}
