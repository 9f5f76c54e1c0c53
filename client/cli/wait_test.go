package cli_test

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

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
	m := fakemachine.New(t)
	if err := m.StartDaemon(t.Context(), m.Socket); err != nil {
		t.Fatal(err)
	}
	m.Names.Answers = map[string]localapi.DNSAnswer{"web.shop.svc. A": {Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Type: "CNAME", Data: "x."}, {Type: "A", Data: "127.0.0.1"}}}}
	m.Ways.Probes = []localapi.Probe{cut, mute, {RTTMs: 1}}
	later := time.AfterFunc(50*time.Millisecond, func() {
		if r := m.Podnet("connect"); r.Code != 0 {
			t.Error(r.Stderr)
		}
	})
	defer later.Stop()
	r := m.Podnet("wait", "--for", "dns", "--for=connected", "--for", "service/shop/web,svc/shop/web:"+strings.TrimPrefix(port.Addr().String(), "127.0.0.1:"), "-o", "json")
	r.Want(t, 0, "connected\n", "dns\n", "service/shop/web\n")
	if at := strings.Index(r.Stderr, "connected\n"); at > strings.Index(r.Stderr, "dns\n") {
		t.Errorf("order:\n%s", r.Stderr)
	}
	var s localapi.Status
	if err := json.Unmarshal([]byte(r.Out), &s); err != nil || s.State != localapi.Connected {
		t.Errorf("%v: %s", err, r.Out)
	}
	m.Podnet("connect", "--wait").Want(t, 0, "connected") // it is there, and works
}

// TestWaitInVain names what is missing.
func TestWaitInVain(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	at := strings.TrimPrefix(closed.Addr().String(), "127.0.0.1:")
	m := fakemachine.New(t)
	m.Podnet("wait", "--timeout", "50ms").Want(t, exit.Timeout, "not within 50ms: nothing is connected")
	if m.Started != 0 {
		t.Error("waiting started a daemon")
	}
	m.Podnet("connect").Want(t, 0)
	m.Names.Answers = map[string]localapi.DNSAnswer{"web.shop.svc. AAAA": {Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Type: "AAAA", Data: "::ffff:127.0.0.1"}}}}
	m.Ways.Probes = []localapi.Probe{mute}
	m.Podnet("wait", "--for", "dns,connected,service/shop/db:5432,service/shop/web:"+at, "--timeout=300ms").Want(t, exit.Timeout,
		"dns: programs ask somebody else; service/shop/db:5432: its name has no address; service/shop/web:"+at+": ", "refused")
	m.Podnet("wait", "--session", "blue", "--timeout=300ms").Want(t, exit.Timeout, "no session is called blue")
	m.Ways.Probes = []localapi.Probe{cut}
	m.Podnet("connect", "--wait=300ms").Want(t, exit.Timeout, "not connected after 300ms: connected: the gateway's DNS does not answer")
	m.Podnet("wait", "--for", "dns", "--timeout=300ms").Want(t, exit.Timeout, "dns: the gateway's DNS does not answer")
	ctx, interrupt := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, interrupt)
	if r := m.PodnetContext(ctx, "wait"); r.Code != exit.Interrupted {
		t.Errorf("exit status %d: %s", r.Code, r.Stderr)
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
		m := fakemachine.New(t)
		m.Podnet(append([]string{"wait"}, strings.Fields(line)...)...).Want(t, exit.Usage, says)
	}
}
