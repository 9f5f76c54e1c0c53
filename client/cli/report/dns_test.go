package report_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestQueryDNS(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("dns", "query", "web").Want(t, exit.NotConnected, "error: nothing is connected", "hint: podnet connect")
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	defer m.Podnet("disconnect")
	m.Names.Answers = map[string]localapi.DNSAnswer{
		"web A": {Rcode: "NOERROR", Class: "single", TookMs: 3.21,
			Answers: []localapi.DNSRecord{{Name: "web.", TTL: 5, Type: "A", Data: "10.96.0.20"}},
			Asked:   []localapi.DNSQuestion{{Of: "cluster", Name: "web.shop.svc.cluster.local.", Rcode: "NOERROR", Server: "198.18.0.1:53", TookMs: 3.1}}},
		"nas A": {Rcode: "NXDOMAIN", Class: "single", TookMs: 2004, Asked: []localapi.DNSQuestion{
			{Of: "cluster", Name: "nas.shop.svc.cluster.local.", Rcode: "NXDOMAIN", Server: "198.18.0.1:53", Cached: true},
			{Of: "base", Name: "nas.", Error: "ask [192.168.1.1:53] for nas.: i/o timeout", TookMs: 2003}}},
		"web AAAA":        {Rcode: "NOERROR", Class: "single"},
		"ledger.pay.svc ": {Rcode: "NXDOMAIN", Class: "nowhere"},
	}
	m.Podnet("dns", "query", "web", "A").Prints(t, "web. 5 A 10.96.0.20\n")
	const explained = `question  web A
is        a short name
asked     the cluster (198.18.0.1:53) for web.shop.svc.cluster.local.: NOERROR, 3.1 ms
answer    web. 5 A 10.96.0.20
took      3.2 ms
`
	m.Podnet("dns", "query", "web", "A", "--explain").Prints(t, explained)
	m.Podnet("dns", "query", "nas", "A", "--explain").Quiet(t, exit.DNS,
		"the cluster (198.18.0.1:53) for nas.shop.svc.cluster.local.: NXDOMAIN, remembered",
		"this machine's own resolver for nas.: ask [192.168.1.1:53] for nas.: i/o timeout", "there is no such name (NXDOMAIN)", "2004 ms")
	m.Podnet("dns", "query", "web", "AAAA").Want(t, exit.DNS, "error: web AAAA: the name exists and has no such record")
	m.Podnet("dns", "query", "ledger.pay.svc", "--explain").Quiet(t, exit.DNS, "of no namespace of this session: nobody is asked")
	var a localapi.DNSAnswer
	if err := json.Unmarshal([]byte(m.Podnet("dns", "query", "web", "A", "-o", "json").Out), &a); err != nil || a.Kind != "DNSAnswer" || len(a.Asked) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	m.Podnet("dns", "query").Want(t, exit.Usage, "takes a name")
	m.Podnet("dns", "query", "a", "b", "c").Want(t, exit.Usage)
	m.Podnet("dns", "query", "a", "-o", "xml").Want(t, exit.Usage)
	m.Names.Fail = &localapi.Error{Code: localapi.CodeUsage, Message: `"ADDRESS" is no type of DNS records`, Hint: "podnet dns query --help"}
	m.Podnet("dns", "query", "a", "address").Want(t, exit.Usage, "is no type")
}

func TestDNSLog(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("dns", "log").Want(t, exit.NotConnected, "error: nothing is connected")
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	defer m.Podnet("disconnect")
	at := time.Date(2026, 3, 2, 10, 2, 11, 418e6, time.Local)
	m.Names.Queries = []localapi.DNSQuery{
		{Seq: 1, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "web.", Type: "A", Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Data: "10.96.0.20"}}, Asked: []localapi.DNSQuestion{{Of: "cluster"}}, TookMs: 2.5}},
		{Seq: 2, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "web.", Type: "AAAA", Rcode: "NOERROR", Asked: []localapi.DNSQuestion{{Of: "cluster", Cached: true}}}},
		{Seq: 3, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "nas.", Type: "A", Rcode: "NXDOMAIN", Asked: []localapi.DNSQuestion{{Of: "cluster"}, {Of: "base"}}, TookMs: 31}},
		{Seq: 4, Time: at, DNSAnswer: localapi.DNSAnswer{Name: "localhost.", Type: "A", Rcode: "NOERROR", Answers: []localapi.DNSRecord{{Data: "127.0.0.1"}}}},
	}
	m.Podnet("dns", "log").Prints(t, `10:02:11.418  web. A  10.96.0.20  2.5 ms  the cluster
10:02:11.418  web. AAAA  no such record  0.0 ms  the cluster, remembered
10:02:11.418  nas. A  NXDOMAIN  31 ms  this machine's own resolver
10:02:11.418  localhost. A  127.0.0.1  0.0 ms  podnet itself
`)
	r := m.Podnet("dns", "log", "-o", "json")
	var q localapi.DNSQuery
	if err := json.NewDecoder(strings.NewReader(r.Out)).Decode(&q); err != nil || q.Seq != 1 || q.Name != "web." || !q.Time.Equal(at) {
		t.Errorf("%v: %s", err, r.Out)
	}
}
