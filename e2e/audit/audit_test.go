package audit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// noon is when all of it happens.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// line is an event of the log, some seconds after noon.
func line(after int, user, verb, resource, name, body string, more ...string) string {
	object, namespace, _ := strings.Cut(name, "@")
	if body != "" {
		body = `,"requestObject":` + body
	}
	text := fmt.Sprintf(`{"kind":"Event","stage":"ResponseComplete","requestURI":"/apis/podnet.dev/v1alpha1/%s","verb":%q,"user":{"username":%q},
"objectRef":{"apiGroup":"podnet.dev","resource":%q,"namespace":%q,"name":%q},"responseStatus":{"code":200}%s,"requestReceivedTimestamp":%q}`,
		resource, verb, user, resource, namespace, object, body, noon.Add(time.Duration(after)*time.Second).Format(time.RFC3339Nano))
	text = strings.ReplaceAll(text, "\n", "")
	for i := 0; i < len(more); i += 2 {
		text = strings.Replace(text, more[i], more[i+1], 1)
	}
	return text + "\n"
}

const (
	aPeer  = `{"metadata":{"name":"a-1"},"spec":{"user":"alice","leaseSeconds":60,"renew":1}}`
	access = `{"metadata":{"name":"a-1"},"spec":{"user":"alice","peer":"a-1","renew":1}}`
)

func TestWhoHadAccess(t *testing.T) {
	span := func(user, namespace string, from, until int, deleted bool) Span {
		return Span{user, namespace, "a-1", noon.Add(time.Duration(from) * time.Second), noon.Add(time.Duration(until) * time.Second), deleted}
	}
	enrolled := line(0, "alice", "create", "peers", "@podnet-system", aPeer) + line(1, "alice", "create", "accesses", "@shop", access)
	for what, c := range map[string]struct {
		log  string
		want []Span
	}{
		"nothing":                         {"", nil},
		"a client that says nothing more": {enrolled, []Span{span("alice", "shop", 1, 60, false)}},
		"renewals": {enrolled + line(30, "alice", "patch", "peers", "a-1@podnet-system", `{"spec":{"renew":2}}`) + line(31, "alice", "patch", "accesses", "a-1@shop", `{"spec":{"renew":2}}`),
			[]Span{span("alice", "shop", 1, 90, false)}},
		"a renewal of the Peer alone":  {enrolled + line(30, "alice", "patch", "peers", "a-1@podnet-system", `{"spec":{"renew":2}}`), []Span{span("alice", "shop", 1, 61, false)}},
		"a write that renews nothing":  {enrolled + line(30, "alice", "patch", "peers", "a-1@podnet-system", `{"spec":{"candidates":["192.0.2.1:1024"]}}`), []Span{span("alice", "shop", 1, 60, false)}},
		"a renewal that was refused":   {enrolled + line(30, "alice", "patch", "accesses", "a-1@shop", `{"spec":{"renew":2}}`, `"code":200`, `"code":403`), []Span{span("alice", "shop", 1, 60, false)}},
		"an administrator's deletion":  {enrolled + line(30, "admin", "delete", "peers", "a-1@podnet-system", ""), []Span{span("alice", "shop", 1, 30, true)}},
		"an Access that was deleted":   {enrolled + line(30, "alice", "delete", "accesses", "a-1@shop", ""), []Span{span("alice", "shop", 1, 30, true)}},
		"all deleted at once":          {enrolled + line(30, "admin", "deletecollection", "accesses", "@shop", ""), []Span{span("alice", "shop", 1, 30, true)}},
		"housekeeping after the lease": {enrolled + line(3600, "gateway", "delete", "peers", "a-1@podnet-system", ""), []Span{span("alice", "shop", 1, 60, false)}},
		"a dry run":                    {line(0, "alice", "create", "peers", "@podnet-system", aPeer) + line(1, "alice", "create", "accesses", "@shop", access, "/accesses", "/accesses?dryRun=All"), nil},
		"a status":                     {enrolled + line(30, "gateway", "patch", "peers", "a-1@podnet-system", "", `"resource":"peers"`, `"resource":"peers","subresource":"status"`), []Span{span("alice", "shop", 1, 60, false)}},
		"a Peer of somebody else":      {line(0, "bob", "create", "peers", "@podnet-system", aPeer) + line(1, "alice", "create", "accesses", "@shop", access), nil},
		"the whole cluster": {line(0, "alice", "create", "peers", "@podnet-system", aPeer) + line(1, "alice", "create", "accesses", "@podnet-system", strings.Replace(access, `"renew"`, `"scope":"Cluster","renew"`, 1)),
			[]Span{span("alice", Everywhere, 1, 60, false)}},
		"the same name again": {enrolled + line(30, "alice", "delete", "peers", "a-1@podnet-system", "") + line(31, "alice", "delete", "accesses", "a-1@shop", "") +
			line(100, "alice", "create", "peers", "@podnet-system", aPeer) + line(101, "alice", "create", "accesses", "@shop", access),
			[]Span{span("alice", "shop", 1, 30, true), span("alice", "shop", 101, 160, false)}},
		"somebody as alice": {strings.ReplaceAll(enrolled, `"user":{"username":"alice"}`, `"user":{"username":"root"},"impersonatedUser":{"username":"alice"}`), []Span{span("alice", "shop", 1, 60, false)}},
		"a log without bodies": {line(0, "alice", "create", "peers", "a-1@podnet-system", "") + line(1, "alice", "create", "accesses", "a-1@shop", "") + line(30, "alice", "delete", "accesses", "a-1@shop", ""),
			[]Span{span("alice", "shop", 1, 30, true)}},
		"requests that ended in another order": {line(1, "alice", "create", "accesses", "@shop", access) + line(0, "alice", "create", "peers", "@podnet-system", aPeer), []Span{span("alice", "shop", 1, 60, false)}},
	} {
		got, err := Read(strings.NewReader(c.log))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
	}
	if _, err := Read(strings.NewReader("{}\nnonsense\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a log that is none: %v", err)
	}
}
