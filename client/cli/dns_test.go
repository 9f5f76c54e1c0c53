package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"podnet.dev/client/localapi"
)

// fakeNames answers from a table of names and types.
type fakeNames struct {
	answers   map[string]localapi.DNSAnswer
	namespace string
	fail      error
}

func (f *fakeNames) QueryDNS(_ context.Context, name, qtype string) (localapi.DNSAnswer, error) {
	a := f.answers[name+" "+qtype]
	a.APIVersion, a.Kind, a.Name, a.Type = localapi.APIVersion, "DNSAnswer", name, qtype
	return a, f.fail
}

func (*fakeNames) SetPrimary(context.Context, bool) error { return nil }

func (f *fakeNames) SetNamespace(_ context.Context, namespace string) error {
	if f.fail == nil {
		f.namespace = namespace
	}
	return f.fail
}

// prints wants success, and exactly this on standard output.
func (r result) prints(t *testing.T, want string) {
	t.Helper()
	if r.code != 0 || r.out != want {
		t.Errorf("exit status %d, got\n%swant\n%s%s", r.code, r.out, want, r.stderr)
	}
}

// quiet wants a failure that is told on standard output alone.
func (r result) quiet(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.code != code || r.stderr != "" {
		t.Errorf("exit status %d, want %d\n%s", r.code, code, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.out, w) {
			t.Errorf("no %q in\n%s", w, r.out)
		}
	}
}

func TestQueryDNS(t *testing.T) {
	m := newMachine(t)
	m.podnet("dns", "query", "web").want(t, exitNotConnected, "error: nothing is connected", "hint: podnet connect")
	m.podnet("connect", "-n", "shop").want(t, 0)
	defer m.podnet("disconnect")
	m.names.answers = map[string]localapi.DNSAnswer{
		"web A": {Rcode: "NOERROR", Class: "single", TookMs: 3.21,
			Answers: []localapi.DNSRecord{{Name: "web.", TTL: 5, Type: "A", Data: "10.96.0.20"}},
			Asked:   []localapi.DNSQuestion{{Of: "cluster", Name: "web.shop.svc.cluster.local.", Rcode: "NOERROR", Server: "198.18.0.1:53", TookMs: 3.1}}},
		"nas A": {Rcode: "NXDOMAIN", Class: "single", TookMs: 2004, Asked: []localapi.DNSQuestion{
			{Of: "cluster", Name: "nas.shop.svc.cluster.local.", Rcode: "NXDOMAIN", Server: "198.18.0.1:53", Cached: true},
			{Of: "base", Name: "nas.", Error: "ask [192.168.1.1:53] for nas.: i/o timeout", TookMs: 2003}}},
		"web AAAA":        {Rcode: "NOERROR", Class: "single"},
		"ledger.pay.svc ": {Rcode: "NXDOMAIN", Class: "nowhere"},
	}
	m.podnet("dns", "query", "web", "A").prints(t, "web. 5 A 10.96.0.20\n")
	const explained = `question  web A
is        a short name
asked     the cluster (198.18.0.1:53) for web.shop.svc.cluster.local.: NOERROR, 3.1 ms
answer    web. 5 A 10.96.0.20
took      3.2 ms
`
	m.podnet("dns", "query", "web", "A", "--explain").prints(t, explained)
	m.podnet("dns", "query", "nas", "A", "--explain").quiet(t, exitDNS,
		"the cluster (198.18.0.1:53) for nas.shop.svc.cluster.local.: NXDOMAIN, remembered",
		"this machine's own resolver for nas.: ask [192.168.1.1:53] for nas.: i/o timeout", "there is no such name (NXDOMAIN)", "2004 ms")
	m.podnet("dns", "query", "web", "AAAA").want(t, exitDNS, "error: web AAAA: the name exists and has no such record")
	m.podnet("dns", "query", "ledger.pay.svc", "--explain").quiet(t, exitDNS, "of no namespace of this session: nobody is asked")
	var a localapi.DNSAnswer
	if err := json.Unmarshal([]byte(m.podnet("dns", "query", "web", "A", "-o", "json").out), &a); err != nil || a.Kind != "DNSAnswer" || len(a.Asked) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	m.podnet("dns", "query").want(t, exitUsage, "takes a name")
	m.podnet("dns", "query", "a", "b", "c").want(t, exitUsage)
	m.podnet("dns", "query", "a", "-o", "xml").want(t, exitUsage)
	m.names.fail = &localapi.Error{Code: localapi.CodeUsage, Message: `"ADDRESS" is no type of DNS records`, Hint: "podnet dns query --help"}
	m.podnet("dns", "query", "a", "address").want(t, exitUsage, "is no type")
}

func TestNamespace(t *testing.T) {
	m := newMachine(t)
	m.podnet("namespace").want(t, exitNotConnected, "nothing is connected")
	m.podnet("namespace", "pay").want(t, exitNotConnected, "nothing is connected")
	m.podnet("connect", "-n", "shop", "-n", "pay").want(t, 0)
	defer m.podnet("disconnect")
	m.podnet("namespace").prints(t, "shop\n")
	if m.podnet("namespace", "pay").want(t, 0, "short names are those of namespace pay"); m.names.namespace != "pay" {
		t.Errorf("%q", m.names.namespace)
	}
	m.podnet("namespace", "Pay/ment").want(t, exitUsage, "is no name for a namespace")
	m.podnet("namespace", "a", "b").want(t, exitUsage)
	m.names.fail = &localapi.Error{Code: localapi.CodeNotFound, Message: "namespace ops is not one of the session's: shop, pay", Hint: "podnet disconnect, then podnet connect -n ops"}
	m.podnet("namespace", "ops").want(t, exitGeneric, "not one of the session's", "hint: podnet disconnect")
}
