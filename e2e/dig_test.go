//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// digNames are the objects that digCases is about. Nothing runs behind them, so
// that every answer is known.
func digNames() string {
	var all strings.Builder
	object := func(kind, namespace, name, rest string) {
		version := "v1"
		if kind == "EndpointSlice" {
			version = "discovery.k8s.io/v1"
		}
		fmt.Fprintf(&all, "---\napiVersion: %s\nkind: %s\nmetadata: {name: %q, namespace: %q%s}\n%s\n", version, kind, name, namespace, labelOf(kind, name), rest)
	}
	service := func(name, spec string) { object("Service", "names", name, "spec: {"+spec+"}") }
	headless := func(name, ports string) { service(name, "clusterIP: None, ports: ["+ports+"]") }
	slice := func(name, ports string, endpoints ...string) {
		family := "IPv4"
		if strings.Contains(strings.Join(endpoints, ""), "::") {
			family = "IPv6"
		}
		object("EndpointSlice", "names", name, "addressType: "+family+"\nports: ["+ports+"]\nendpoints: ["+strings.Join(endpoints, ", ")+"]")
	}
	pod := func(host, addr string) string { return fmt.Sprintf("{hostname: %q, addresses: [%q]}", host, addr) }
	const web, pg, metrics = "{name: http, port: 8080}", "{name: pg, port: 5432}", "{name: metrics, port: 9187}"

	service("web", "clusterIP: 10.96.200.1, clusterIPs: [10.96.200.1, 'fd00:10:96::c801'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]")
	slice("web-4", web, "{addresses: [10.244.1.241]}", "{addresses: [10.244.1.242]}")
	service("anon", "clusterIP: 10.96.200.2, ports: [{port: 8080}]")
	service("six", "clusterIP: 'fd00:10:96::c803', ipFamilies: [IPv6], ports: [{name: http, port: 80}]")
	service("idle", "clusterIP: 10.96.200.4, ports: [{name: http, port: 80}]")
	headless("db", pg+", "+metrics)
	slice("db-4", pg+", "+metrics, pod("db-0", "10.244.1.230"), pod("db-1", "10.244.1.231"), "{hostname: db-2, addresses: [10.244.1.232], conditions: {ready: false}}")
	slice("db-6", pg+", "+metrics, pod("db-0", "fd00:10:244:1::e6"))
	headless("bare", web)
	slice("bare-4", web, "{addresses: [10.244.1.233]}")
	slice("bare-6", web, "{addresses: ['fd00:10:244:1::']}")
	headless("nobody", web)
	headless("unready", web)
	slice("unready-4", web, "{hostname: u-0, addresses: [10.244.1.234], conditions: {ready: false}}")
	headless("early", web)
	slice("early-4", web, "{hostname: e-0, addresses: [10.244.1.235], conditions: {ready: true, serving: false, terminating: true}}")
	headless("twins", web)
	slice("twins-4", web, pod("twin", "10.244.1.236"), pod("twin", "10.244.1.237"))
	headless("portless", "")
	slice("portless-4", "", pod("p-0", "10.244.1.238"))
	for name, n := range map[string]int{"crowd": 100, "group": 40} {
		headless(name, web)
		var pods []string
		for i := range n {
			pods = append(pods, pod(fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("10.244.1.%d", 101+i)))
		}
		slice(name+"-4", web, pods...)
	}
	for name, target := range map[string]string{
		"docs": "www.example.test", "alias": "web.names.svc.cluster.local", "twice": "alias.names.svc.cluster.local", "spy": "secret.unseen.svc.cluster.local",
		"dangling": "gone.names.svc.cluster.local", "loop": "pool.names.svc.cluster.local", "pool": "loop.names.svc.cluster.local", "nowhere": "nothere.example.test",
	} {
		service(name, "type: ExternalName, externalName: "+target)
	}
	object("Service", "unseen", "secret", "spec: {clusterIP: 10.96.200.99, ports: [{name: http, port: 80}]}")
	return "apiVersion: v1\nkind: Namespace\nmetadata: {name: names}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: unseen}\n" + all.String()
}

func labelOf(kind, name string) string {
	if kind != "EndpointSlice" {
		return ""
	}
	return fmt.Sprintf(", labels: {kubernetes.io/service-name: %q}", name[:strings.LastIndex(name, "-")])
}

// digCase is a question, in dig's words, and what is to be the answer: records
// as "TYPE data" in the order of the alphabet, with " + " between them, NODATA
// and NXDOMAIN, both with a start of authority, or another rcode. Records that
// do not all fit are "TC".
type digCase struct{ ask, want string }

// inZone are the cases that gateway and laptop answer alike, by UDP and TCP. $Z is
// svc.cluster.local., $N names.$Z.
var inZone = []digCase{
	// 2.2 version, and names that are there because others are below them
	{"dns-version.cluster.local TXT", `TXT "1.1.0"`},
	{"dns-version.cluster.local A", "NODATA"},
	{"cluster.local SOA", "SOA ns.dns.cluster.local. hostmaster.cluster.local."},
	{"cluster.local NS", "NS ns.dns.cluster.local."},
	{"cluster.local A", "NODATA"},
	{"cluster.local MX", "NODATA"},
	{"$Z A", "NODATA"},
	{"$Z SOA", "NODATA"},
	{"pod.cluster.local A", "NODATA"},
	{"$N A", "NODATA"},
	{"$N TXT", "NODATA"},
	{"names.pod.cluster.local A", "NODATA"},
	// 2.3.1 Services with a cluster IP
	{"web.$N A", "A 10.96.200.1"},
	{"web.$N AAAA", "AAAA fd00:10:96::c801"},
	{"WEB.Names.SVC.Cluster.Local A", "A 10.96.200.1"},
	{"anon.$N A", "A 10.96.200.2"},
	{"anon.$N AAAA", "NODATA"},
	{"six.$N AAAA", "AAAA fd00:10:96::c803"},
	{"six.$N A", "NODATA"},
	{"idle.$N A", "A 10.96.200.4"},
	{"web.$N SRV", "NODATA"},
	{"web.$N TXT", "NODATA"},
	{"web.$N MX", "NODATA"},
	{"web.$N CNAME", "NODATA"},
	{"web.$N NS", "NODATA"},
	{"web.$N SOA", "NODATA"},
	{"web.$N HTTPS", "NODATA"},
	{"web.$N SVCB", "NODATA"},
	{"web.$N CAA", "NODATA"},
	{"web.$N PTR", "NODATA"},
	{"web.$N DS", "NODATA"},
	{"web.$N TYPE65400", "NODATA"},
	// 2.3.2 their ports
	{"_http._tcp.web.$N SRV", "SRV 80 web.$N"},
	{"_dns._udp.web.$N SRV", "SRV 53 web.$N"},
	{"_HTTP._TCP.web.$N SRV", "SRV 80 web.$N"},
	{"_http._tcp.six.$N SRV", "SRV 80 six.$N"},
	{"_http._tcp.idle.$N SRV", "SRV 80 idle.$N"},
	{"_http._udp.web.$N SRV", "NXDOMAIN"},
	{"_dns._tcp.web.$N SRV", "NXDOMAIN"},
	{"_nope._tcp.web.$N SRV", "NXDOMAIN"},
	{"_80._tcp.web.$N SRV", "NXDOMAIN"},
	{"_8080._tcp.anon.$N SRV", "NXDOMAIN"},
	{"_http._tcp.web.$N A", "NODATA"},
	{"_tcp.web.$N SRV", "NODATA"},
	{"_sctp.web.$N SRV", "NXDOMAIN"},
	// 2.3.3 and 2.4.3 addresses
	{"-x 10.96.200.1", "PTR web.$N"},
	{"-x fd00:10:96::c801", "PTR web.$N"},
	{"-x 10.96.200.2", "PTR anon.$N"},
	{"-x fd00:10:96::c803", "PTR six.$N"},
	{"-x 10.96.200.77", "NXDOMAIN"},
	{"-x 10.96.200.99", "NXDOMAIN"}, // a Service's in a namespace that is not seen
	{"-x 10.244.1.230", "PTR db-0.db.$N"},
	{"-x 10.244.1.231", "PTR db-1.db.$N"},
	{"-x 10.244.1.232", "NXDOMAIN"},
	{"-x fd00:10:244:1::e6", "PTR db-0.db.$N"},
	{"-x 10.244.1.233", "PTR 10-244-1-233.bare.$N"},
	{"-x fd00:10:244:1::", "PTR fd00-10-244-1--0.bare.$N"},
	{"-x 10.244.1.241", "PTR 10-244-1-241.web.$N"},
	{"-x fd00:10:244:1::77", "NXDOMAIN"},
	{"1.200.96.10.in-addr.arpa A", "NODATA"},
	{"200.96.10.in-addr.arpa PTR", "NODATA"},
	// 2.4.1 headless Services
	{"db.$N A", "A 10.244.1.230 + A 10.244.1.231"},
	{"db.$N AAAA", "AAAA fd00:10:244:1::e6"},
	{"db-0.db.$N A", "A 10.244.1.230"},
	{"db-0.db.$N AAAA", "AAAA fd00:10:244:1::e6"},
	{"db-1.db.$N A", "A 10.244.1.231"},
	{"db-1.db.$N AAAA", "NODATA"},
	{"db-2.db.$N A", "NXDOMAIN"},
	{"db-9.db.$N A", "NXDOMAIN"},
	{"x.db-0.db.$N A", "NXDOMAIN"},
	{"DB-0.db.$N A", "A 10.244.1.230"},
	{"10-244-1-230.db.$N A", "NXDOMAIN"}, // it has a hostname
	{"bare.$N A", "A 10.244.1.233"},
	{"bare.$N AAAA", "AAAA fd00:10:244:1::"},
	{"10-244-1-233.bare.$N A", "A 10.244.1.233"},
	{"fd00-10-244-1--0.bare.$N AAAA", "AAAA fd00:10:244:1::"},
	{"10-244-1-241.web.$N A", "A 10.244.1.241"},
	{"nobody.$N A", "NXDOMAIN"},
	{"unready.$N A", "NXDOMAIN"},
	{"u-0.unready.$N A", "NXDOMAIN"},
	{"early.$N A", "A 10.244.1.235"},
	{"e-0.early.$N A", "A 10.244.1.235"},
	{"twin.twins.$N A", "A 10.244.1.236 + A 10.244.1.237"},
	{"portless.$N A", "A 10.244.1.238"},
	{"p-0.portless.$N A", "A 10.244.1.238"},
	// 2.4.2 their ports
	{"_pg._tcp.db.$N SRV", "SRV 5432 db-0.db.$N + SRV 5432 db-1.db.$N"},
	{"_metrics._tcp.db.$N SRV", "SRV 9187 db-0.db.$N + SRV 9187 db-1.db.$N"},
	{"_http._tcp.bare.$N SRV", "SRV 8080 10-244-1-233.bare.$N + SRV 8080 fd00-10-244-1--0.bare.$N"},
	{"_http._tcp.twins.$N SRV", "SRV 8080 twin.twins.$N"},
	{"_http._tcp.nobody.$N SRV", "NXDOMAIN"},
	{"_pg._udp.db.$N SRV", "NXDOMAIN"},
	// 2.5 ExternalName
	{"docs.$N CNAME", "CNAME www.example.test."},
	{"docs.$N A", "A 198.51.100.53 + CNAME www.example.test."},
	{"alias.$N A", "A 10.96.200.1 + CNAME web.$N"},
	{"alias.$N AAAA", "AAAA fd00:10:96::c801 + CNAME web.$N"},
	{"alias.$N TXT", "CNAME web.$N"},
	{"twice.$N A", "A 10.96.200.1 + CNAME alias.$N + CNAME web.$N"},
	{"spy.$N A", "CNAME secret.unseen.$Z + NXDOMAIN"},
	{"dangling.$N A", "CNAME gone.$N + NXDOMAIN"},
	{"nowhere.$N A", "CNAME nothere.example.test. + NXDOMAIN"},
	{"loop.$N A", "SERVFAIL"},
	{"below.docs.$N A", "NXDOMAIN"},
	// pods by their address
	{"10-244-1-77.names.pod.cluster.local A", "A 10.244.1.77"},
	{"10-244-1-77.names.pod.cluster.local AAAA", "NODATA"},
	{"fd00-10-244-1--77.names.pod.cluster.local AAAA", "AAAA fd00:10:244:1::77"},
	{"fd00-10-244-1--77.names.pod.cluster.local A", "NODATA"},
	{"10-244-1.names.pod.cluster.local A", "NXDOMAIN"},
	{"10-244-1-777.names.pod.cluster.local A", "NXDOMAIN"},
	{"nopod.names.pod.cluster.local A", "NXDOMAIN"},
	{"10-244-1-77.unseen.pod.cluster.local A", "NXDOMAIN"},
	// what does not exist
	{"gone.$N A", "NXDOMAIN"},
	{"gone.$N AAAA", "NXDOMAIN"},
	{"gone.$N TXT", "NXDOMAIN"},
	{"gone.$N SOA", "NXDOMAIN"},
	{"a.b.c.$N A", "NXDOMAIN"},
	{"web.nosuch.$Z A", "NXDOMAIN"},
	{"nosuch.cluster.local A", "NXDOMAIN"},
	// namespaces without Access
	{"secret.unseen.$Z A", "NXDOMAIN"},
	{"secret.unseen.$Z TXT", "NXDOMAIN"},
	{"nope.unseen.$Z A", "NXDOMAIN"},
	{"unseen.$Z A", "NXDOMAIN"},
	{"_http._tcp.secret.unseen.$Z SRV", "NXDOMAIN"},
	// classes and operations
	{"web.$N ANY +notcp", "NODATA"},
	{"web.$N A -c CH", "REFUSED"},
	{"version.bind TXT -c CH", "REFUSED"},
	{"web.$N A +opcode=notify", "NOTIMP"},
	{"web.$N A +opcode=update", "NOTIMP"},
	{"web.$N A +opcode=status", "NOTIMP"},
	{"web.$N A +header-only", "FORMERR"},
	{"web.$N MAILB", "REFUSED"},
	{"cluster.local AXFR", "Transfer failed"},
	// EDNS and sizes
	{"web.$N A +noedns", "A 10.96.200.1"},
	{"web.$N A +norecurse", "A 10.96.200.1"},
	{"web.$N A +edns=1 +noednsneg", "BADVERS"},
	{"web.$N A +dnssec", "A 10.96.200.1"},
	{"web.$N A +cdflag", "A 10.96.200.1"},
	{"web.$N A +nsid", "A 10.96.200.1"},
	{"web.$N A +nocookie", "A 10.96.200.1"},
	{"web.$N A +subnet=192.0.2.0/24", "A 10.96.200.1"},
	{"web.$N A +ednsopt=65001:c0ffee", "A 10.96.200.1"},
	{"web.$N A +padding=128", "A 10.96.200.1"},
	{"web.$N A +bufsize=512", "A 10.96.200.1"},
	{"web.$N A +bufsize=65535", "A 10.96.200.1"},
	{"group.$N A +notcp +ignore +noedns", "TC"},
	{"group.$N A +notcp +ignore +bufsize=512", "TC"},
	{"group.$N A +notcp +ignore +bufsize=1232", addresses(40)},
	{"group.$N A +notcp +noedns", addresses(40)}, // again by TCP
	{"crowd.$N A +notcp +ignore +bufsize=1232", "TC"},
	{"crowd.$N A +notcp +ignore +bufsize=4096", "TC"},
	{"crowd.$N A +notcp", addresses(100)},
	{"crowd.$N A +tcp", addresses(100)},
	{"_http._tcp.crowd.$N SRV +notcp +ignore +bufsize=1232", "TC"},
}

// atGateway and atLaptop are those that they do not answer alike.
var (
	atGateway = []digCase{
		{"ns.dns.cluster.local A", "A 198.18.0.1"},
		{"ns.dns.cluster.local AAAA", "AAAA fd70:6f64:6e65:7400::1"},
		{"www.example.test A", "REFUSED"},
		{"web A", "REFUSED"},
		{"web.names A", "REFUSED"},
		{". NS", "REFUSED"},
		{"-x 192.0.2.1", "NXDOMAIN"},
	}
	atLaptop = []digCase{
		{"www.example.test A", "A 198.51.100.53"},
		{"web A", "A 10.96.200.1"},
		{"web.names A", "A 10.96.200.1"},
		{"web.names AAAA", "AAAA fd00:10:96::c801"},
		{"web.names.svc A", "A 10.96.200.1"},
		{"db-0.db.names A", "A 10.244.1.230"},
		{"_http._tcp.web.names SRV", "SRV 80 web.$N"},
		{"docs.names A", "A 198.51.100.53 + CNAME www.example.test."},
		{"secret.unseen.svc A", "NXDOMAIN"},
		{"localhost A", "A 127.0.0.1"},
		{"localhost AAAA", "AAAA ::1"},
	}
)

// addresses are the records of n pods of group or crowd.
func addresses(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("A 10.244.1.%d", 101+i))
	}
	slices.Sort(all)
	return strings.Join(all, " + ")
}

// spelt is a case as it is, without abbreviations.
func (c digCase) spelt() digCase {
	long := strings.NewReplacer("$N", "names.svc.cluster.local.", "$Z", "svc.cluster.local.")
	return digCase{long.Replace(c.ask), long.Replace(c.want)}
}

// transports are the ways to ask, where the case does not say.
func (c digCase) transports() []string {
	if strings.Contains(c.ask, "+tcp") || strings.Contains(c.ask, "+notcp") || strings.Contains(c.ask, "AXFR") {
		return []string{""}
	}
	return []string{"+notcp", "+tcp"}
}

var (
	digStatus = regexp.MustCompile(`status: ([A-Z]+)`)
	digFlags  = regexp.MustCompile(`;; flags: ([a-z ]*);`)
	digRecord = regexp.MustCompile(`(?m)^\S+\s+\d+\s+IN\s+(\S+)\s+(.*)$`)
)

// digSaid is what dig's output says, in the words of a digCase.
func digSaid(out string) string {
	if strings.Contains(out, "Transfer failed") {
		return "Transfer failed"
	}
	status := digStatus.FindStringSubmatch(out)
	flags := digFlags.FindStringSubmatch(out)
	if status == nil || flags == nil {
		return "no answer: " + out
	}
	if slices.Contains(strings.Fields(flags[1]), "tc") {
		return "TC"
	}
	answer, authority, _ := strings.Cut(out, ";; AUTHORITY SECTION:")
	var all []string
	for _, m := range digRecord.FindAllStringSubmatch(answer, -1) {
		data := strings.Fields(m[2])
		switch m[1] {
		case "SRV": // priority and weight are not prescribed
			data = data[2:]
		case "SOA":
			data = data[:2]
		}
		all = append(all, m[1]+" "+strings.Join(data, " "))
	}
	slices.Sort(all)
	start := strings.Contains(authority, "\tSOA\t")
	switch code := status[1]; {
	case code == "NOERROR" && len(all) == 0 && start:
		all = []string{"NODATA"}
	case code == "NOERROR" && len(all) == 0:
		all = []string{"NODATA without a start of authority"}
	case code == "NXDOMAIN" && len(all) == 0 && !start:
		all = []string{"NXDOMAIN without a start of authority"}
	case code != "NOERROR":
		all = append(all, code)
	}
	return strings.Join(all, " + ")
}

// digAll asks a server everything, in one go, and gives how many answers were
// right and what the others were.
func digAll(t testing.TB, m machine, server string, cases []digCase) (right int, wrong []string) {
	t.Helper()
	type question struct {
		digCase
		line string
	}
	var all []question
	var script strings.Builder
	for _, c := range cases {
		c = c.spelt()
		for _, transport := range c.transports() {
			line := strings.TrimSpace(c.ask + " " + transport)
			all = append(all, question{c, line})
			fmt.Fprintf(&script, "echo '=== '; dig @%s +time=3 +tries=2 +noall +comments +answer +authority %s 2>&1\n", server, line)
		}
	}
	file := filepath.Join(t.TempDir(), "ask")
	write(t, file, script.String())
	outs := strings.Split(m.sh(". "+file+"; true").must(t), "=== ")[1:]
	if len(outs) != len(all) {
		t.Fatalf("%d answers to %d questions", len(outs), len(all))
	}
	for i, q := range all {
		if got := digSaid(outs[i]); got != q.want {
			wrong = append(wrong, fmt.Sprintf("dig @%s %s\n  says %s\n  want %s", server, q.line, got, q.want))
			continue
		}
		right++
	}
	return right, wrong
}

// TestDig asks for every kind of name with dig, at the gateway and at the laptop's
// own proxy.
func TestDig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names.yaml")
	write(t, file, digNames())
	kubectl("apply", "-f", file).must(t)
	kubectl("create", "rolebinding", "lab-names", "-n", "names", "--clusterrole=podnet-user", "--user=alice").must(t)
	t.Cleanup(func() { kubectl("delete", "namespace", "names", "unseen", "--wait=false").must(t) })
	alice.connect(t, "-n", "names")
	proxy := alice.sh("awk '/^nameserver/ {print $2; exit}' /etc/resolv.conf").must(t)
	for _, at := range []struct {
		what, server string
		cases        []digCase
	}{
		{"gateway", "198.18.0.1", slices.Concat(inZone, atGateway)},
		{"laptop's proxy", proxy, slices.Concat(inZone, atLaptop)},
	} {
		eventually(t, 20*time.Second, "the last of the names", func() error {
			if got := digSaid(alice.cmd("dig", "@"+at.server, "+noall", "+comments", "+answer", "+authority", "_http._tcp.twins.names.svc.cluster.local", "SRV").must(t)); !strings.HasPrefix(got, "SRV") {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
		right, wrong := digAll(t, alice, at.server, at.cases)
		report(t, fmt.Sprintf("dig at the %s, %d cases", at.what, len(at.cases)), fmt.Sprintf("%d of %d answers right", right, right+len(wrong)))
		for _, w := range wrong {
			t.Error(w)
		}
	}
}
