package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/daemon"
	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeKube is a connection flag of kubectl's.
type fakeKube struct{ set *pflag.FlagSet }

func newFakeKube() fakeKube {
	f := fakeKube{pflag.NewFlagSet("kube", pflag.ContinueOnError)}
	for _, name := range []string{"context", "user", "as", "as-group"} {
		f.set.String(name, "", "")
	}
	return f
}
func (f fakeKube) AddTo(to *pflag.FlagSet) { to.AddFlagSet(f.set) }
func (f fakeKube) Kube([]string) (localapi.Kube, error) {
	k := localapi.Kube{Flags: map[string][]string{}}
	f.set.Visit(func(fl *pflag.Flag) { k.Flags[fl.Name] = []string{fl.Value.String()} })
	f.set.VisitAll(func(fl *pflag.Flag) {
		if fl.Changed {
			k.Flags[fl.Name] = []string{fl.Value.String()}
		}
	})
	return k, nil
}

// fakeInstaller remembers what it was asked for.
type fakeInstaller struct {
	got  InstallOptions
	gone string // the namespace of an uninstall
	fail error
}

func (f *fakeInstaller) Render(o InstallOptions, format string) ([]byte, error) {
	return []byte(format + " of " + o.Image + "\n"), nil
}
func (f *fakeInstaller) Install(ctx context.Context, _ localapi.Kube, o InstallOptions, say func(string)) error {
	f.got = o
	say("applied everything")
	if f.fail == nil {
		return nil
	}
	if errors.Is(f.fail, context.DeadlineExceeded) {
		<-ctx.Done()
	}
	return f.fail
}
func (f *fakeInstaller) Uninstall(_ context.Context, _ localapi.Kube, namespace string, _ func(string)) error {
	f.gone = namespace
	return f.fail
}

// fakeSession becomes ready at once, never, or fails.
type fakeSession struct {
	req    localapi.ConnectRequest
	events func(localapi.Event)
	fail   error
	never  bool
	*fakeSteering
	*fakeExposing
	*fakeNames
	*fakeWays
}

func (f *fakeSession) Run(ctx context.Context) error {
	f.events(localapi.Event{Type: localapi.EventPhase, Phase: localapi.PhaseAuth})
	if f.fail != nil {
		return f.fail
	}
	f.events(localapi.Event{Type: localapi.EventDone, Phase: localapi.PhaseAuth, Text: "alice at https://api", ElapsedMs: 120})
	if !f.never {
		f.events(localapi.Event{Type: localapi.EventReady})
	}
	<-ctx.Done()
	if f.never {
		return ctx.Err()
	}
	return nil
}

func (f *fakeSession) Status() (localapi.Connection, []localapi.Warning) {
	namespace := "shop"
	if len(f.req.Namespaces) > 0 {
		namespace = f.req.Namespaces[0]
	}
	return localapi.Connection{Name: "kind", Context: "kind", User: "alice", Namespace: namespace, Namespaces: f.req.Namespaces,
		Path: localapi.Path{Kind: f.req.Path}, Routes: []string{"10.96.0.0/16"}, DNS: localapi.DNS{Zone: "cluster.local"}}, nil
}

// machine is one user's machine: the CLI and the daemon that it starts.
type machine struct {
	t       *testing.T
	socket  string
	environ []string
	install fakeInstaller
	fail    error
	never   bool
	ask     func(context.Context, string) bool
	started int
	cleaned int
	proxy   func(context.Context, ProxyOptions) error
	logFile string

	autostart fakeAutostart
	last      localapi.ConnectRequest

	rooms       Rooms
	privileged  bool
	signals     func() (<-chan os.Signal, func())
	environment func(context.Context, ContainerRequest) (ContainerEnvironment, error)

	steering fakeSteering
	exposing fakeExposing
	exports  fakeExports
	names    fakeNames
	ways     fakeWays
	log      string
	spawn    func([]string) (*Spawned, error)
	cluster  *fakeCluster
	admin    fakeAdmin
	where    func(localapi.Kube) (context, server string, err error)
	// when this is printed, then is called.
	when     string
	then     func()
	findings []localapi.Finding
	examined localapi.DoctorRequest
}

func newMachine(t *testing.T) *machine {
	return &machine{t: t, socket: filepath.Join(t.TempDir(), "run", "d.sock")}
}

// screenful is what was printed; with the word when it calls then.
type screenful struct {
	text bytes.Buffer
	when string
	then func()
}

func (s *screenful) String() string { return s.text.String() }

func (s *screenful) Write(p []byte) (int, error) {
	if s.when != "" && strings.Contains(string(p), s.when) {
		defer s.then()
	}
	return s.text.Write(p)
}

type result struct {
	code        int
	out, stderr string
}

func (m *machine) podnet(args ...string) result {
	m.t.Helper()
	return m.podnetContext(m.t.Context(), args...)
}

func (m *machine) podnetContext(ctx context.Context, args ...string) result {
	m.t.Helper()
	out, errs := screenful{when: m.when, then: m.then}, bytes.Buffer{}
	env := Env{
		Env: caller.Env{
			In: strings.NewReader(""), Out: &out, Err: &errs, Environ: append([]string{"PODNET_SOCKET=" + m.socket}, m.environ...),
			Kube: newFakeKube(), Ask: m.ask, StartDaemon: m.startDaemon,
		},
		Host: Host{
			Proxy: m.proxy, Spawn: m.spawn, Rooms: m.rooms, Privileged: func() bool { return m.privileged }, Signals: m.signals, ContainerEnvironment: m.environment,
		},
		Clusters: Clusters{Installer: &m.install, Admin: &m.admin, DefaultImage: "podnet.dev/gateway:test", DefaultAgentImage: "podnet.dev/agent:test"},
		Cleanup:  func(context.Context) error { m.cleaned++; return nil },
		Guard:    func(string, io.Reader) error { return nil }, LogFile: m.logFile, Autostart: &m.autostart,
	}
	if m.cluster != nil {
		env.Cluster = m.cluster
	}
	code := Run(ctx, env, args)
	return result{code, out.String(), errs.String()}
}

func (m *machine) startDaemon(_ context.Context, socket string) error {
	m.started++
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- daemon.Run(ctx, daemon.Options{Socket: socket, LogFile: m.log, Log: slog.New(slog.DiscardHandler), Exports: &m.exports, Where: m.where,
			NewSession: func(req localapi.ConnectRequest, events func(localapi.Event)) daemon.Session {
				m.last = req
				return &fakeSession{req: req, events: events, fail: m.fail, never: m.never, fakeSteering: &m.steering, fakeExposing: &m.exposing, fakeNames: &m.names, fakeWays: &m.ways}
			},
			Doctor: func(_ context.Context, req localapi.DoctorRequest, _ func() localapi.Status, say func(localapi.Finding)) error {
				m.examined = req
				for _, f := range m.findings {
					say(f)
				}
				return nil
			}})
	}()
	m.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Error(err)
		}
	})
	c := localapi.NewClient(socket)
	for range 1000 {
		if _, err := c.Version(ctx); err == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the daemon does not answer")
}

func (r result) want(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit status %d, want %d\n%s%s", r.code, code, r.out, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.stderr, w) {
			t.Errorf("no %q in\n%s%s", w, r.out, r.stderr)
		}
	}
	if code != 0 && code != exit.NotConnected && code != exit.Interrupted {
		if strings.Count(r.stderr, "error: ") != 1 || strings.Count(r.stderr, "hint: ") != 1 {
			t.Errorf("want one error and one hint:\n%s", r.stderr)
		}
		if strings.Contains(r.out, "error") {
			t.Errorf("an error on standard output: %s", r.out)
		}
	}
}

func TestADay(t *testing.T) {
	m := newMachine(t)
	m.podnet("status").want(t, exit.NotConnected, "not connected")
	m.podnet("disconnect", "--all").want(t, 0, "not connected")
	if m.started != 0 || m.cleaned != 1 {
		t.Errorf("looking started %d daemons, cleaned %d times", m.started, m.cleaned)
	}
	r := m.podnet("connect", "-n", "shop", "-n", "pay", "--path", "apiserver", "--context", "kind")
	r.want(t, 0, "connected", "kind as alice", "shop, pay", "0.1s  auth")
	if strings.Contains(r.stderr, "\x1b") || strings.Contains(r.out, "\x1b") {
		t.Error("escape sequences where there is no terminal")
	}
	if m.last.Path != "apiserver" || m.last.LeaseSeconds != 300 || m.last.GatewayNamespace != "podnet-system" || m.last.Kube.Flags["context"][0] != "kind" {
		t.Errorf("asked for %+v", m.last)
	}
	m.podnet("connect", "-n", "shop,pay", "--path=apiserver", "--context=kind").want(t, 0, "connected")
	m.podnet("connect", "-n", "other").want(t, exit.Conflict, "podnet disconnect")
	m.podnet("status").want(t, 0, "connected")
	m.podnet("version").want(t, 0, "podnet ", "daemon ")
	m.podnet("disconnect").want(t, 0, "disconnected")
	m.podnet("status").want(t, exit.NotConnected, "not connected")
	if m.started != 1 {
		t.Errorf("%d daemons were started", m.started)
	}
}

func TestStatusJSON(t *testing.T) {
	m := newMachine(t)
	for _, connected := range []bool{false, true} {
		if connected {
			m.podnet("connect").want(t, 0)
		}
		r := m.podnet("status", "-o", "json")
		var s struct {
			APIVersion, Kind, State string
			Connections             []struct{ Name, Context, Namespace string }
			Warnings                []any
		}
		if err := json.Unmarshal([]byte(r.out), &s); err != nil {
			t.Fatalf("%v in %s", err, r.out)
		}
		want := map[bool]string{false: "Disconnected", true: "Connected"}[connected]
		if s.APIVersion != "podnet/v1" || s.Kind != "Status" || s.State != want || s.Warnings == nil || s.Connections == nil || connected && s.Connections[0].Name != "kind" {
			t.Errorf("got %s", r.out)
		}
	}
}

func TestConnectJSON(t *testing.T) {
	r := newMachine(t).podnet("connect", "--wait", "-o", "json")
	r.want(t, 0)
	var s localapi.Status
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || s.State != localapi.Connected {
		t.Errorf("%v: %s", err, r.out)
	}
}

func TestFailuresHaveTheirStatus(t *testing.T) {
	for code, want := range map[string]int{
		localapi.CodeForbidden: 4, localapi.CodeCredentials: 4, localapi.CodeTimeout: 5, localapi.CodeUnreachable: 6,
		localapi.CodePrivilege: 7, localapi.CodeConflict: 8, localapi.CodeDNS: 9, localapi.CodeInternal: 1, localapi.CodeNotInstalled: 1,
	} {
		m := newMachine(t)
		m.fail = &localapi.Error{Code: code, Message: "it went wrong", Hint: "do this", Phase: "gateway"}
		m.podnet("connect").want(t, want, "error: it went wrong (in phase gateway)\nhint: do this\n")
	}
	m := newMachine(t)
	m.fail = errors.New("something nobody thought of")
	m.podnet("connect").want(t, 1, "something nobody thought of")
}

func TestWaitHasAnEnd(t *testing.T) {
	m := newMachine(t)
	m.never = true
	m.podnet("connect", "--wait=50ms").want(t, exit.Timeout, "50ms")
}

func TestInterrupt(t *testing.T) {
	m := newMachine(t)
	m.never = true
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, interrupt)
	if r := m.podnetContext(ctx, "connect"); r.code != exit.Interrupted {
		t.Errorf("exit status %d: %s", r.code, r.stderr)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		says string
	}{
		{"conect", "conect"},
		{"connect --path pigeon", "auto, udp, apiserver"},
		{"connect --addresses none", "auto, direct, virtual"},
		{"map 10.96.0.0 10.244.0.0", "one address or prefix, not 2"},
		{"map web.shop", "no address and no prefix"},
		{"map -o xml", "want table, json, yaml, jsonpath=TEMPLATE or custom-columns=NAME:PATH"},
		{"connect -n No_Such!", "No_Such!"},
		{"connect --gateway-namespace UPPER", "UPPER"},
		{"connect --lease 5s", "1m0s to 15m0s"},
		{"connect -A -n a -n b", "--all-namespaces"},
		{"connect shop", "there is no profile shop"},
		{"connect --also-route 10.20.0.1/16", "did you mean 10.20.0.0/16?"},
		{"exec --also-domain internal -- true", "two labels"},
		{"connect --never-route all", "want a prefix"},
		{"connect --nonsense", "--nonsense"},
		{"status -o xml", "xml"},
		{"doctor -o name", "want table, json, yaml, jsonpath=TEMPLATE or custom-columns=NAME:PATH"},
		{"status -w -o name", "--watch"},
		{"status --progress loud", "want auto, plain, json or none"},
		{"completion tcsh", "bash, zsh, fish or powershell"},
		{"doctor -n No_Such!", "No_Such!"},
		{"install -o yaml", "--dry-run"},
		{"install -o name", "want yaml or json"},
		{"install --replicas many", "many"},
	} {
		m := newMachine(t)
		m.podnet(strings.Fields(c.args)...).want(t, exit.Usage, c.says)
		if m.started != 0 {
			t.Errorf("%s started a daemon", c.args)
		}
	}
}

func TestEveryFlagHasAVariable(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"PODNET_NAMESPACE=shop,pay", "PODNET_PATH=udp", "PODNET_CONTEXT=kind", "PODNET_LEASE=90s"}
	m.podnet("connect", "--path", "auto").want(t, 0) // a flag wins over its variable
	if m.last.Path != "auto" || strings.Join(m.last.Namespaces, " ") != "shop pay" || m.last.LeaseSeconds != 90 || m.last.Kube.Flags["context"][0] != "kind" {
		t.Errorf("asked for %+v", m.last)
	}
	m = newMachine(t)
	m.environ = []string{"PODNET_LEASE=soon"}
	m.podnet("connect").want(t, exit.Usage, "PODNET_LEASE")
	m = newMachine(t)
	m.environ = []string{"CI=true"}
	m.podnet("connect").want(t, 0)
	if m.last.LeaseSeconds != 120 {
		t.Errorf("a job's lease is %d s", m.last.LeaseSeconds)
	}
}

func TestInstall(t *testing.T) {
	m := newMachine(t)
	m.podnet("install", "--dry-run", "-o", "yaml", "--image", "reg/gw:1").want(t, 0, "yaml of reg/gw:1")
	m.podnet("install", "--gateway-namespace", "net", "--image-pull-policy", "Never", "--node-port", "31820", "--replicas", "2", "--pod-cidr", "10.0.0.0/8,fd00:10::/48").want(t, 0, "applied everything", "kubectl -n net create rolebinding")
	o := m.install.got
	if len(o.PodCIDRs) != 2 || o.Namespace != "net" || o.Namespaced || o.Image != "podnet.dev/gateway:test" || o.PullPolicy != "Never" || o.NodePort != 31820 || o.Replicas != 2 {
		t.Errorf("installed %+v", o)
	}
	m.install.fail = &localapi.Error{Code: localapi.CodeDeploy, Message: "image cannot be pulled", Hint: "--image"}
	m.podnet("install").want(t, exit.Deploy, "image cannot be pulled")
	m.install.fail = context.DeadlineExceeded
	m.podnet("install", "--timeout", "20ms").want(t, exit.Timeout, "20ms")
	m.install.fail = nil
	m.podnet("uninstall").want(t, 0, "podnet is gone")
}

func TestInstallForOneNamespace(t *testing.T) {
	m := newMachine(t)
	m.environ = []string{"PODNET_NAMESPACE=pay"} // is connect's
	m.podnet("install").want(t, 0, "podnet-connect")
	if o := m.install.got; o.Namespaced || o.Namespace != "podnet-system" {
		t.Errorf("installed %+v", o)
	}
	m.podnet("install", "-n", "shop", "--service-cidr", "10.96.0.0/12").want(t, 0, "for the namespace shop", "podnet connect -n shop")
	if o := m.install.got; !o.Namespaced || o.Namespace != "shop" || len(o.ServiceCIDRs) != 1 {
		t.Errorf("installed %+v", o)
	}
	m.podnet("install", "-n", "shop", "--gateway-namespace", "net").want(t, exit.Usage, "do not go together")
	m.podnet("uninstall").want(t, 0, "podnet is gone")
	if m.install.gone != "" {
		t.Errorf("uninstalled from %q", m.install.gone)
	}
	m.podnet("uninstall", "--namespace", "shop").want(t, 0, "podnet is gone")
	if m.install.gone != "shop" {
		t.Errorf("uninstalled from %q", m.install.gone)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"", "--help", "connect --help", "completion bash"} {
		newMachine(t).podnet(strings.Fields(args)...).want(t, 0, "podnet")
	}
}
