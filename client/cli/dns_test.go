package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// fakeNames answers from a table of names and types.
type fakeNames struct {
	answers   map[string]localapi.DNSAnswer
	namespace string
	queries   []localapi.DNSQuery
	fail      error
}

func (f *fakeNames) QueryDNS(_ context.Context, name, qtype string) (localapi.DNSAnswer, error) {
	a := f.answers[name+" "+qtype]
	a.APIVersion, a.Kind, a.Name, a.Type = localapi.APIVersion, "DNSAnswer", name, qtype
	return a, f.fail
}

func (f *fakeNames) DNSQueries(ctx context.Context, follow bool, begin func(), line func(localapi.DNSQuery) error) error {
	begin()
	for _, q := range f.queries {
		if err := line(q); err != nil {
			return err
		}
	}
	if follow {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (*fakeNames) Namespaces(context.Context) ([]string, error)                 { return []string{"pay", "shop"}, nil }
func (*fakeNames) Services(context.Context, string) ([]localapi.Service, error) { return nil, nil }

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
	m.podnet("dns", "query", "web").want(t, exit.NotConnected, "error: nothing is connected", "hint: podnet connect")
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
	m.podnet("dns", "query", "nas", "A", "--explain").quiet(t, exit.DNS,
		"the cluster (198.18.0.1:53) for nas.shop.svc.cluster.local.: NXDOMAIN, remembered",
		"this machine's own resolver for nas.: ask [192.168.1.1:53] for nas.: i/o timeout", "there is no such name (NXDOMAIN)", "2004 ms")
	m.podnet("dns", "query", "web", "AAAA").want(t, exit.DNS, "error: web AAAA: the name exists and has no such record")
	m.podnet("dns", "query", "ledger.pay.svc", "--explain").quiet(t, exit.DNS, "of no namespace of this session: nobody is asked")
	var a localapi.DNSAnswer
	if err := json.Unmarshal([]byte(m.podnet("dns", "query", "web", "A", "-o", "json").out), &a); err != nil || a.Kind != "DNSAnswer" || len(a.Asked) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	m.podnet("dns", "query").want(t, exit.Usage, "takes a name")
	m.podnet("dns", "query", "a", "b", "c").want(t, exit.Usage)
	m.podnet("dns", "query", "a", "-o", "xml").want(t, exit.Usage)
	m.names.fail = &localapi.Error{Code: localapi.CodeUsage, Message: `"ADDRESS" is no type of DNS records`, Hint: "podnet dns query --help"}
	m.podnet("dns", "query", "a", "address").want(t, exit.Usage, "is no type")
}

func TestNamespace(t *testing.T) {
	m := newMachine(t)
	m.podnet("namespace").want(t, exit.NotConnected, "nothing is connected")
	m.podnet("namespace", "pay").want(t, exit.NotConnected, "nothing is connected")
	m.podnet("connect", "-n", "shop", "-n", "pay").want(t, 0)
	defer m.podnet("disconnect")
	m.podnet("namespace").prints(t, "shop\n")
	if m.podnet("namespace", "pay").want(t, 0, "short names are those of namespace pay"); m.names.namespace != "pay" {
		t.Errorf("%q", m.names.namespace)
	}
	m.podnet("namespace", "Pay/ment").want(t, exit.Usage, "is no name for a namespace")
	m.podnet("namespace", "a", "b").want(t, exit.Usage)
	m.names.fail = &localapi.Error{Code: localapi.CodeNotFound, Message: "namespace ops is not one of the session's: shop, pay", Hint: "podnet disconnect, then podnet connect -n ops"}
	m.podnet("namespace", "ops").want(t, exit.Generic, "not one of the session's", "hint: podnet disconnect")
}

func TestDNSLog(t *testing.T) {
	m := newMachine(t)
	m.podnet("dns", "log").want(t, exit.NotConnected, "error: nothing is connected")
	m.podnet("connect", "-n", "shop").want(t, 0)
	defer m.podnet("disconnect")
	at := time.Date(2026, 3, 2, 10, 2, 11, 418e6, time.Local)
	m.names.queries = []localapi.DNSQuery{
		{Seq: 1, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "web.", Type: "A", Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Data: "10.96.0.20"}}, Asked: []localapi.DNSQuestion{{Of: "cluster"}}, TookMs: 2.5}},
		{Seq: 2, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "web.", Type: "AAAA", Rcode: "NOERROR", Asked: []localapi.DNSQuestion{{Of: "cluster", Cached: true}}}},
		{Seq: 3, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "nas.", Type: "A", Rcode: "NXDOMAIN", Asked: []localapi.DNSQuestion{{Of: "cluster"}, {Of: "base"}}, TookMs: 31}},
		{Seq: 4, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "localhost.", Type: "A", Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Data: "127.0.0.1"}}}},
	}
	m.podnet("dns", "log").prints(t, `10:02:11.418  web. A  10.96.0.20  2.5 ms  the cluster
10:02:11.418  web. AAAA  no such record  0.0 ms  the cluster, remembered
10:02:11.418  nas. A  NXDOMAIN  31 ms  this machine's own resolver
10:02:11.418  localhost. A  127.0.0.1  0.0 ms  podnet itself
`)
	r := m.podnet("dns", "log", "-o", "json")
	var q localapi.DNSQuery
	if err := json.NewDecoder(strings.NewReader(r.out)).Decode(&q); err != nil || q.Seq != 1 || q.Name != "web." || !q.Time.Equal(at) {
		t.Errorf("%v: %s", err, r.out)
	}
}
