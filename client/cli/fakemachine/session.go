package fakemachine

import (
	"context"
	"sync"

	"podnet.dev/client/localapi"
)

// session becomes ready at once, never, or fails.
type session struct {
	req    localapi.ConnectRequest
	events func(localapi.Event)
	fail   error
	never  bool
	*Steering
	*Exposing
	*Names
	*Ways
}

func (f *session) Run(ctx context.Context) error {
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

func (f *session) Status() (localapi.Connection, []localapi.Warning) {
	namespace := "shop"
	if len(f.req.Namespaces) > 0 {
		namespace = f.req.Namespaces[0]
	}
	c := localapi.Connection{Name: "kind", Context: "kind", User: "alice", Namespace: namespace, Namespaces: f.req.Namespaces,
		Path: localapi.Path{Kind: f.req.Path}, Routes: []string{"10.96.0.0/16"}, DNS: localapi.DNS{Zone: "cluster.local"}}
	if f.req.Addresses == "virtual" {
		c.Routes = []string{"100.81.0.0/16", "fd00:10:244::/56"}
		c.Addresses = localapi.Addresses{Mode: "virtual", Why: "asked for", Map: []localapi.VirtualPrefix{{Real: "10.96.0.0/16", Virtual: "100.81.0.0/16"}}}
	}
	return c, nil
}

// Names answers from a table of names and types.
type Names struct {
	Answers   map[string]localapi.DNSAnswer
	Namespace string
	Queries   []localapi.DNSQuery
	Opened    []string // virtual addresses
	Fail      error
}

func (f *Names) QueryDNS(_ context.Context, name, qtype string) (localapi.DNSAnswer, error) {
	a := f.Answers[name+" "+qtype]
	a.APIVersion, a.Kind, a.Name, a.Type = localapi.APIVersion, "DNSAnswer", name, qtype
	return a, f.Fail
}

func (f *Names) DNSQueries(ctx context.Context, follow bool, begin func(), line func(localapi.DNSQuery) error) error {
	begin()
	for _, q := range f.Queries {
		if err := line(q); err != nil {
			return err
		}
	}
	if follow {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (f *Names) OpenAddress(address string) error {
	f.Opened = append(f.Opened, address)
	return f.Fail
}

func (*Names) Namespaces(context.Context) ([]string, error)                 { return []string{"pay", "shop"}, nil }
func (*Names) Services(context.Context, string) ([]localapi.Service, error) { return nil, nil }

func (*Names) SetPrimary(context.Context, bool) error { return nil }

func (f *Names) SetNamespace(_ context.Context, namespace string) error {
	if f.Fail == nil {
		f.Namespace = namespace
	}
	return f.Fail
}

// Ways gives a probe after the other; the last one stays.
type Ways struct {
	mu     sync.Mutex
	Probes []localapi.Probe
}

func (f *Ways) Probe(context.Context) (localapi.Probe, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p localapi.Probe
	if len(f.Probes) > 0 {
		p = f.Probes[0]
	}
	if len(f.Probes) > 1 {
		f.Probes = f.Probes[1:]
	}
	return p, nil
}
