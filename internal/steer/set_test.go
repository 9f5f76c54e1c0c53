package steer

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var monday = time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)

// steal is a rule that steals from TCP port 8080 for its owner, who made it some
// minutes after Monday morning began.
func steal(owner string, minute int, matches ...Match) Rule {
	return Rule{
		Name: owner + "-web", Owner: owner, Since: monday.Add(time.Duration(minute) * time.Minute),
		Protocol: TCP, Port: 8080, Mode: Steal, Matches: matches,
	}
}

func mirror(owner string, minute int, matches ...Match) Rule {
	r := steal(owner, minute, matches...)
	r.Name, r.Mode = owner+"-copy", Mirror
	return r
}

func header(name, value string) Match { return Match{Headers: []Condition{{name, value}}} }
func query(name, value string) Match  { return Match{Query: []Condition{{name, value}}} }
func path(pattern string) Match       { return Match{Path: pattern} }

// get is a request as people write it: a target, then fields.
func get(target string, fields ...string) *Head { return send("GET", target, fields...) }

func send(method, target string, fields ...string) *Head {
	h := &Head{Method: method, Target: target, Host: "web.shop:8080"}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Fields = append(h.Fields, Field{name, value})
	}
	return h
}

func compile(t testing.TB, rules ...Rule) *Port {
	t.Helper()
	set, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	p := set.Port(TCP, 8080)
	if p == nil {
		t.Fatal("nobody steers the port")
	}
	return p
}

// story is a decision in a word: who answers, and who gets a copy.
func story(d Decision) string {
	s := "app"
	if d.Steal != nil {
		s = d.Steal.Owner
	}
	for _, m := range d.Mirrors {
		s += " +" + m.Owner
	}
	return s
}

func TestDecide(t *testing.T) {
	alice, bob := header("x-user", "alice"), header("x-user", "bob")
	for name, test := range map[string]struct {
		rules []Rule
		head  *Head
		want  string
	}{
		"hers":                 {[]Rule{steal("ada", 1, alice)}, get("/", "X-User: alice"), "ada"},
		"not hers":             {[]Rule{steal("ada", 1, alice)}, get("/", "X-User: carol"), "app"},
		"each gets their own":  {[]Rule{steal("ada", 1, alice), steal("bo", 2, bob)}, get("/", "X-User: bob"), "bo"},
		"any match of a rule":  {[]Rule{steal("ada", 1, alice, bob)}, get("/", "X-User: bob"), "ada"},
		"whole port":           {[]Rule{steal("ada", 1)}, get("/"), "ada"},
		"match before whole":   {[]Rule{steal("ada", 1), steal("bo", 2, bob)}, get("/", "X-User: bob"), "bo"},
		"the rest of the port": {[]Rule{steal("ada", 1), steal("bo", 2, bob)}, get("/", "X-User: alice"), "ada"},

		"more conditions first": {[]Rule{
			steal("ada", 1, path("/api/very/long/path")),
			steal("bo", 2, Match{Path: "/api/*", Method: "GET"}),
		}, get("/api/very/long/path"), "bo"},
		"exact before glob":      {[]Rule{steal("ada", 1, path("/api/cart*")), steal("bo", 2, path("/api/cart"))}, get("/api/cart"), "bo"},
		"glob before expression": {[]Rule{steal("ada", 1, path("~^/api/cart$")), steal("bo", 2, path("/*"))}, get("/api/cart"), "bo"},
		"longer glob first":      {[]Rule{steal("ada", 1, path("/api/*")), steal("bo", 2, path("/api/cart*"))}, get("/api/cart"), "bo"},
		"older first":            {[]Rule{steal("ada", 2, path("/a*")), steal("bo", 1, path("*/a"))}, get("/a"), "bo"},
		"name first":             {[]Rule{steal("bo", 1, path("/a*")), steal("ada", 1, path("*/a"))}, get("/a"), "ada"},
		"best match of a rule": {[]Rule{
			steal("ada", 1, path("/a*")),
			steal("bo", 2, path("/*"), path("/a")),
		}, get("/a"), "bo"},

		"mirror":                 {[]Rule{mirror("ada", 1, alice)}, get("/", "X-User: alice"), "app +ada"},
		"mirror of what is not":  {[]Rule{mirror("ada", 1, alice)}, get("/"), "app"},
		"mirror of a whole port": {[]Rule{mirror("ada", 1)}, get("/"), "app +ada"},
		"steal and mirrors": {[]Rule{
			mirror("ada", 2), mirror("bo", 1), mirror("cy", 3, alice), steal("di", 4, alice), steal("ed", 5),
		}, get("/", "X-User: alice"), "di +cy +bo +ada"},
		"a copy once": {[]Rule{mirror("ada", 1, alice, path("/"))}, get("/", "X-User: alice"), "app +ada"},

		"probe of the kubelet": {[]Rule{steal("ada", 1), mirror("bo", 2), steal("cy", 3, path("/healthz"))},
			get("/healthz", "Accept: */*", "User-Agent: kube-probe/1.34"), "app"},
		"probe by gRPC": {[]Rule{steal("ada", 1)},
			send("POST", "/grpc.health.v1.Health/Check", "user-agent: kube-probe/1.34 grpc-go/1.70", "content-type: application/grpc"), "app"},
		"no probe": {[]Rule{steal("ada", 1)}, get("/", "User-Agent: curl/8 kube-probe/1.34"), "ada"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := story(compile(t, test.rules...).Decide(test.head)); got != test.want {
				t.Errorf("goes to %s, want %s", got, test.want)
			}
		})
	}
}

func TestWhole(t *testing.T) {
	alice := header("x-user", "alice")
	for name, test := range map[string]struct {
		rules []Rule
		want  string
		http  bool
	}{
		"one whole port": {[]Rule{steal("ada", 1)}, "ada", false},
		"the older":      {[]Rule{steal("ada", 2), steal("bo", 1)}, "bo", false},
		"requests only":  {[]Rule{steal("ada", 1, alice), mirror("bo", 1, alice)}, "app", true},
		"both":           {[]Rule{steal("ada", 1, alice), steal("bo", 2), mirror("cy", 3), mirror("di", 2)}, "bo +di +cy", true},
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t, test.rules...)
			if got := story(p.Whole()); got != test.want || p.HTTP() != test.http {
				t.Errorf("goes to %s, HTTP %v; want %s, %v", got, p.HTTP(), test.want, test.http)
			}
		})
	}
}

func TestPortsAreApart(t *testing.T) {
	dns := steal("ada", 1)
	dns.Name, dns.Protocol, dns.Port = "ada-dns", UDP, 53
	set, err := Compile([]Rule{steal("ada", 1), dns})
	if err != nil {
		t.Fatal(err)
	}
	if set.Port(TCP, 53) != nil || set.Port(UDP, 8080) != nil || set.Port(TCP, 80) != nil {
		t.Error("a port is steered that nobody asked for")
	}
	if got := set.Port(UDP, 53).Whole().Steal; got == nil || got.Name != "ada-dns" {
		t.Errorf("the UDP port goes to %v", got)
	}
}

func TestSetKeepsNothingOfItsRules(t *testing.T) {
	rules := []Rule{steal("ada", 1, header("x-user", "alice"))}
	set, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	rules[0].Owner = "eve"
	rules[0].Matches[0].Headers[0].Value = "bob"
	d := set.Port(TCP, 8080).Decide(get("/", "x-user: alice"))
	if story(d) != "ada" || d.Steal.Matches[0].Headers[0].Value != "alice" {
		t.Errorf("the set has changed with the slice: %+v", d.Steal)
	}
}

func TestNamesAreUnique(t *testing.T) {
	_, err := Compile([]Rule{steal("ada", 1), steal("ada", 2)})
	if err == nil || !strings.Contains(err.Error(), `rule "ada-web": name: `) {
		t.Errorf("%v", err)
	}
}

func BenchmarkDecide(b *testing.B) {
	var rules []Rule
	for i := range 16 {
		rules = append(rules, steal(fmt.Sprintf("dev%02d", i), i, Match{
			Path:    "/api/*",
			Headers: []Condition{{"x-user", fmt.Sprintf("dev%02d", i)}},
		}))
	}
	p := compile(b, rules...)
	fields := []string{
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64)", "Accept: text/html", "Accept-Language: en",
		"Accept-Encoding: gzip, br", "Referer: http://web.shop/", "Cookie: session=0123456789abcdef",
		"X-Request-Id: 7f1a", "X-Forwarded-Proto: http", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"Cache-Control: no-cache", "Pragma: no-cache",
	}
	for name, head := range map[string]*Head{
		"app":    get("/api/cart?item=1", append(fields, "X-User: nobody")...),
		"laptop": get("/api/cart?item=1", append(fields, "X-User: dev15")...),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(head)
			}
		})
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	p := compile(t, steal("ada", 1, header("x-user", "alice"), query("user", "alice"), Match{GRPC: "a.B/*"}), mirror("bo", 1, path("/x*")))
	h := send("POST", "/api?a=1&b=2", "Content-Type: application/grpc", "X-User: carol")
	if n := testing.AllocsPerRun(100, func() { p.Decide(h) }); n != 0 {
		t.Errorf("%v allocations for a request that nobody wants", n)
	}
}
