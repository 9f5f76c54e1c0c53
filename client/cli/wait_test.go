package cli

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// fakeWays gives a probe after the other; the last one stays.
type fakeWays struct {
	mu     sync.Mutex
	probes []localapi.Probe
}

func (f *fakeWays) Probe(context.Context) (localapi.Probe, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p localapi.Probe
	if len(f.probes) > 0 {
		p = f.probes[0]
	}
	if len(f.probes) > 1 {
		f.probes = f.probes[1:]
	}
	return p, nil
}

var (
	cut  = localapi.Probe{Tunnel: &localapi.Error{Code: localapi.CodeDNS, Message: "the gateway's DNS does not answer"}}
	mute = localapi.Probe{Names: &localapi.Error{Code: localapi.CodeDNS, Message: "programs ask somebody else"}}
)

// TestWait has everything come one after the other, the session first.
func TestWait(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	m := newMachine(t)
	if err := m.startDaemon(t.Context(), m.socket); err != nil {
		t.Fatal(err)
	}
	m.names.answers = map[string]localapi.DNSAnswer{"web.shop.svc. A": {Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Type: "CNAME", Data: "x."}, {Type: "A", Data: "127.0.0.1"}}}}
	m.ways.probes = []localapi.Probe{cut, mute, {RTTMs: 1}}
	later := time.AfterFunc(50*time.Millisecond, func() {
		if r := m.podnet("connect"); r.code != 0 {
			t.Error(r.stderr)
		}
	})
	defer later.Stop()
	r := m.podnet("wait", "--for", "dns", "--for=connected", "--for", "service/shop/web,svc/shop/web:"+strings.TrimPrefix(port.Addr().String(), "127.0.0.1:"), "-o", "json")
	r.want(t, 0, "connected\n", "dns\n", "service/shop/web\n")
	if at := strings.Index(r.stderr, "connected\n"); at > strings.Index(r.stderr, "dns\n") {
		t.Errorf("order:\n%s", r.stderr)
	}
	var s localapi.Status
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || s.State != localapi.Connected {
		t.Errorf("%v: %s", err, r.out)
	}
	m.podnet("connect", "--wait").want(t, 0, "connected") // it is there, and works
}

// TestWaitInVain names what is missing.
func TestWaitInVain(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	at := strings.TrimPrefix(closed.Addr().String(), "127.0.0.1:")
	m := newMachine(t)
	m.podnet("wait", "--timeout", "50ms").want(t, exit.Timeout, "not within 50ms: nothing is connected")
	if m.started != 0 {
		t.Error("waiting started a daemon")
	}
	m.podnet("connect").want(t, 0)
	m.names.answers = map[string]localapi.DNSAnswer{"web.shop.svc. AAAA": {Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Type: "AAAA", Data: "::ffff:127.0.0.1"}}}}
	m.ways.probes = []localapi.Probe{mute}
	m.podnet("wait", "--for", "dns,connected,service/shop/db:5432,service/shop/web:"+at, "--timeout=300ms").want(t, exit.Timeout,
		"dns: programs ask somebody else; service/shop/db:5432: its name has no address; service/shop/web:"+at+": ", "refused")
	m.podnet("wait", "--session", "blue", "--timeout=300ms").want(t, exit.Timeout, "no session is called blue")
	m.ways.probes = []localapi.Probe{cut}
	m.podnet("connect", "--wait=300ms").want(t, exit.Timeout, "not connected after 300ms: connected: the gateway's DNS does not answer")
	m.podnet("wait", "--for", "dns", "--timeout=300ms").want(t, exit.Timeout, "dns: the gateway's DNS does not answer")
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, interrupt)
	if r := m.podnetContext(ctx, "wait"); r.code != exit.Interrupted {
		t.Errorf("exit status %d: %s", r.code, r.stderr)
	}
}

func TestBadWait(t *testing.T) {
	for line, says := range map[string]string{
		"--for rain":                    "no such condition",
		"--for service/web":             "no such condition",
		"--for pod/shop/web":            "no such condition",
		"--for service/shop/Web":        `"Web" is no name`,
		"--for service/shop/web:0":      `"0" is no TCP port`,
		"--for service/shop/web:53/udp": `"53/udp" is no TCP port`,
		"--for service/shop/web:":       `"" is no TCP port`,
		"--timeout 0s":                  "want a time",
		"-o xml":                        "want table",
		"web":                           "takes no arguments",
	} {
		m := newMachine(t)
		m.podnet(append([]string{"wait"}, strings.Fields(line)...)...).want(t, exit.Usage, says)
	}
}

func TestStatusStrict(t *testing.T) {
	m := newMachine(t)
	m.podnet("connect").want(t, 0) // the fake one never looks whether names resolve
	m.podnet("status").want(t, 0)
	if r := m.podnet("status", "--strict"); r.code != exit.DNS || !strings.Contains(r.out, "connected") {
		t.Errorf("exit status %d: %s%s", r.code, r.out, r.stderr)
	}
}
