package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/localapi"
)

func TestPathInWords(t *testing.T) {
	for _, c := range []struct {
		path localapi.Path
		want string
	}{
		{localapi.Path{Kind: "udp", Remote: "203.0.113.7:31820", RTTMs: 11.2, Others: []localapi.OtherPath{{Kind: "apiserver", Remote: "podnet-gateway-0", Live: true}}},
			"udp 203.0.113.7:31820, 11 ms; apiserver stand-by"},
		{localapi.Path{Kind: "apiserver", Remote: "podnet-gateway-0", RTTMs: 23, Reason: "apiserver: UDP to node1:31820 not answered", Others: []localapi.OtherPath{{Kind: "udp", Remote: "node1:31820"}}},
			"apiserver, 23 ms (UDP to node1:31820 not answered)"},
		{localapi.Path{Kind: "apiserver", RTTMs: 9.96, Redials: 2}, "apiserver, 10.0 ms, dialled anew 2 times"},
		{localapi.Path{Reason: "no answer for 3 s"}, "none (no answer for 3 s)"},
		{localapi.Path{Kind: "udp", Remote: "a:1", RTTMs: 1.87, Others: []localapi.OtherPath{{Kind: "udp", Remote: "b:1", Live: true}, {Kind: "udp", Remote: "c:1", Live: true}, {Kind: "udp", Remote: "d:1", Live: true}, {Kind: "apiserver", Live: true}}},
			"udp a:1, 1.9 ms; udp b:1, udp c:1, 2 more stand-by"},
	} {
		if got := describePath(localapi.Connection{Path: c.path}); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// full is a status with everything in it, at now.
func full(now time.Time) localapi.Status {
	at := func(ago time.Duration) *time.Time { t := now.Add(-ago); return &t }
	s := localapi.NewStatus()
	s.State = localapi.Degraded
	s.Connections = append(s.Connections, localapi.Connection{
		Name: "dev", User: "alice", Namespace: "shop", Namespaces: []string{"shop", "pay"}, Since: at(2 * time.Hour), Reenrolled: 1,
		Gateway: localapi.Gateway{Namespace: "podnet-system", Pod: "podnet-gateway-1", Others: []string{"podnet-gateway-0"}},
		Path:    localapi.Path{Kind: "udp", Remote: "203.0.113.7:31820", RTTMs: 11, Others: []localapi.OtherPath{{Kind: "apiserver", Live: true}}},
		Tunnel:  localapi.Tunnel{Interface: "podnet0", Address: "198.18.0.4/32", MTU: 1420, LastHandshake: "42s", Rx: 5 << 20, Tx: 19544},
		Lease:   localapi.Lease{Seconds: 300, Renewed: at(95 * time.Second), ExpiresAt: at(-205 * time.Second), Frozen: true},
		Routes:  []string{"10.244.0.0/16", "10.96.0.0/16"}, DNS: localapi.DNS{Zone: "cluster.local", Mode: "resolved", Listen: []string{"198.18.0.4:53"}, Healthy: true},
		Steering: localapi.Tally{Count: 3, Ready: 2, Trouble: []string{"web-8080, web-1: connection refused at 127.0.0.1:3000"}}, Exposing: localapi.Tally{Count: 1, Ready: 1},
	})
	s.Warnings = append(s.Warnings, localapi.Warning{Code: "lease", Severity: "high", Text: "the lease could not be renewed", Hint: "kubectl cluster-info"})
	return s
}

func TestStatusInWords(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.Local)
	var out bytes.Buffer
	printStatus(&out, full(now), now)
	const want = `degraded    dev as alice
namespaces  shop, pay
gateway     podnet-system/podnet-gateway-1; podnet-gateway-0 stand-by
path        udp 203.0.113.7:31820, 11 ms; apiserver stand-by
tunnel      podnet0 198.18.0.4/32, MTU 1420
traffic     received 5.0 MiB, sent 19.1 KiB; last handshake 42s ago
routes      10.244.0.0/16, 10.96.0.0/16
dns         cluster.local by resolved on 198.18.0.4:53, healthy
steering    2 of 3 rules ready
            web-8080, web-1: connection refused at 127.0.0.1:3000
exposing    1 of 1 exposures ready
lease       5m0s, renewed 1m35s ago, ends at 12:03:25 unless renewed; the API server is away and the gateway keeps us
since       2026-03-02 10:00:00 (2h0m0s), enrolled again once
warning     the lease could not be renewed
            hint: kubectl cluster-info
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestVirtualAddressesInWords(t *testing.T) {
	var out bytes.Buffer
	printStatus(&out, seenElsewhere(), time.Now())
	const want = `
addresses   virtual: the cluster's 10.96.0.0/16 is also the network of docker0
            10.96.0.0/16 at 100.81.0.0/16
            10.244.0.0/16 at 100.80.0.0/16
routes      100.80.1.0/24, 100.81.0.0/16, fd00:10:244::/56
`
	if got := out.String(); !strings.Contains(got, want) {
		t.Errorf("got\n%swant in it%s", got, want)
	}
}

// seenElsewhere is a status of a cluster whose IPv4 addresses are virtual.
func seenElsewhere() localapi.Status {
	s := full(time.Now())
	c := &s.Connections[0]
	c.Addresses = localapi.Addresses{Mode: "virtual", Why: "the cluster's 10.96.0.0/16 is also the network of docker0", Map: []localapi.VirtualPrefix{
		{Real: "10.96.0.0/16", Virtual: "100.81.0.0/16"}, {Real: "10.244.0.0/16", Virtual: "100.80.0.0/16"}}}
	c.Routes = []string{"100.80.1.0/24", "100.81.0.0/16", "fd00:10:244::/56"}
	return s
}

func TestMap(t *testing.T) {
	virtual := seenElsewhere().Connections[0]
	direct := virtual
	direct.Addresses, direct.Routes = localapi.Addresses{Mode: "direct"}, []string{"10.244.1.0/24", "10.96.0.0/16"}
	for _, c := range []struct {
		of          localapi.Connection
		asked, want string
	}{
		{virtual, "", "10.96.0.0/16 100.81.0.0/16, 10.244.0.0/16 100.80.0.0/16, fd00:10:244::/56 fd00:10:244::/56"},
		{virtual, "10.244.1.7", "10.244.1.7 100.80.1.7"},
		{virtual, "100.80.1.7", "10.244.1.7 100.80.1.7, backwards"},
		{virtual, "10.244.1.0/24", "10.244.1.0/24 100.80.1.0/24"},
		{virtual, "100.81.0.0/16", "10.96.0.0/16 100.81.0.0/16, backwards"},
		{virtual, "10.0.0.0/8", "10.96.0.0/16 100.81.0.0/16, 10.244.0.0/16 100.80.0.0/16"},
		{virtual, "fd00:10:244::9", "fd00:10:244::9 fd00:10:244::9"},
		{virtual, "192.0.2.1", "192.0.2.1 is in none of the networks of dev"},
		{direct, "", "10.244.1.0/24 10.244.1.0/24, 10.96.0.0/16 10.96.0.0/16"},
		{direct, "::ffff:10.96.0.1", "10.96.0.1 10.96.0.1"},
		{direct, "10.96.0.0/12", "10.96.0.0/16 10.96.0.0/16"},
		{direct, "100.80.1.7", "100.80.1.7 is in none of the networks of dev"},
	} {
		m, err := mapped(c.of, c.asked)
		var got []string
		for _, p := range m.Map {
			got = append(got, p.Real+" "+p.Virtual)
		}
		if m.backwards {
			got = append(got, "backwards")
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s map %q: %s, want %s", c.of.Addresses.Mode, c.asked, text, c.want)
		}
	}
}

// TestStatusTellsOfRefusals: of what was sent to addresses that nobody had given out.
func TestStatusTellsOfRefusals(t *testing.T) {
	s := seenElsewhere()
	s.Connections[0].Addresses.Refused, s.Connections[0].Addresses.LastRefused = 3, "100.80.1.7"
	var out bytes.Buffer
	if printStatus(&out, s, time.Now()); !strings.Contains(out.String(), "refused 3 packets to addresses that no name has led to, the last to 100.80.1.7\n") {
		t.Errorf("not a word of it in\n%s", out.String())
	}
}

func TestWhomWeSendAs(t *testing.T) {
	now := time.Now()
	s := full(now)
	for want, as := range map[string]localapi.Identity{
		"as          pod/web-1 of deploy/web in namespace shop\n":                      {Target: "deploy/web", Namespace: "shop", Pod: "web-1"},
		"as          no pod of deploy/web yet: pod web-1: an agent is being started\n": {Target: "deploy/web", Namespace: "shop", Text: "pod web-1: an agent is being started"},
	} {
		var out bytes.Buffer
		s.Connections[0].As = &as
		if printStatus(&out, s, now); !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestWhoseDevice(t *testing.T) {
	now := time.Now()
	s := full(now)
	for device, want := range map[string]string{
		localapi.DeviceUserspace: "MTU 1420\n",
		localapi.DeviceKernel:    "MTU 1420, the kernel's WireGuard\n",
	} {
		var out bytes.Buffer
		s.Connections[0].Tunnel.Device = device
		if printStatus(&out, s, now); !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestScreenIsDrawnOver(t *testing.T) {
	now := time.Now()
	got := string(screen(full(now), []string{"something happened"}, now, false))
	if !strings.HasPrefix(got, "\x1b[Hdegraded") || !strings.HasSuffix(got, "something happened\x1b[K\n\x1b[J") {
		t.Errorf("%q", got)
	}
	if n, m := strings.Count(got, "\n"), strings.Count(got, "\x1b[K\n"); n != m {
		t.Errorf("%d of %d lines leave the rest of what was there", n-m, n)
	}
}

func TestStatusOfASessionThatIsToComeBack(t *testing.T) {
	s := localapi.NewStatus()
	s.State, s.LastError = localapi.Failed, &localapi.Error{Message: "the network is away"}
	s.Warnings = []localapi.Warning{{Connection: "work", Code: "reconnect", Text: "work is not connected: the network is away; tried again at 12:00:05", Hint: "podnet disconnect work gives it up"}}
	var out bytes.Buffer
	printStatus(&out, s, time.Now())
	want := "not connected\nthe last session ended: the network is away\nwarning: work is not connected: the network is away; tried again at 12:00:05\nhint: podnet disconnect work gives it up\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestTwoSessionsInWords(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.Local)
	s := full(now)
	s.Connections[0].Primary, s.Connections[0].DNS.Alias, s.Warnings[0].Connection = true, "dev.podnet.internal", "dev"
	blue := full(now).Connections[0]
	blue.Name, blue.DNS.Alias = "blue", "blue.podnet.internal"
	red := localapi.Connection{Name: "red", User: "bob", Phase: localapi.PhaseGateway}
	s.Connections = append(s.Connections, blue, red)
	var out bytes.Buffer
	printStatus(&out, s, now)
	for _, want := range []string{
		"degraded    dev as alice, primary\n", "\n\nconnected   blue as alice\n", "\n\nconnecting  red as bob\nphase       gateway\n", "\n\nwarning  dev: the lease could not be renewed\n",
		"dns         cluster.local, dev.podnet.internal by resolved", "dns         blue.podnet.internal by resolved",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if line := summary(s, now); !strings.Contains(line, "dev: udp") || !strings.Contains(line, "; blue: udp") {
		t.Errorf("summary %s", line)
	}
}
