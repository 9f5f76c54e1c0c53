package client

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/dnsproxy"
)

// QueryDNS answers as the proxy does for this host's resolver, and says from
// where.
func (s *Session) QueryDNS(ctx context.Context, name, qtype string) (localapi.DNSAnswer, error) {
	if !s.ready.Load() {
		return localapi.DNSAnswer{}, notReady()
	}
	e, err := s.resolver.split.Explain(ctx, name, qtype)
	if err != nil {
		return localapi.DNSAnswer{}, &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "podnet dns query --help", Status: http.StatusBadRequest}
	}
	return answer("DNSAnswer", e), nil
}

// answer is an explanation as the local API has it.
func answer(kind string, e dnsproxy.Explanation) localapi.DNSAnswer {
	a := localapi.DNSAnswer{APIVersion: localapi.APIVersion, Kind: kind, Name: e.Name, Type: e.Type,
		Rcode: e.Rcode, Class: e.Class, TookMs: milliseconds(e.Took), Answers: []localapi.DNSRecord{}, Asked: []localapi.DNSQuestion{}}
	for _, rr := range e.Answers {
		a.Answers = append(a.Answers, localapi.DNSRecord{Name: rr.Name, TTL: rr.TTL, Type: rr.Type, Data: rr.Data})
	}
	for _, step := range e.Steps {
		q := localapi.DNSQuestion{Of: step.Side, Name: step.Name, Rcode: step.Rcode, Cached: step.Cached, TookMs: milliseconds(step.Took)}
		if step.Server.IsValid() {
			q.Server = step.Server.String()
		}
		if step.Err != nil {
			q.Error = step.Err.Error()
		}
		a.Asked = append(a.Asked, q)
	}
	return a
}

// DNSQueries calls begin when the session is ready, and line with the last questions
// of this machine's programs and, to follow, with those that come, until ctx is done,
// line fails or the session ends.
func (s *Session) DNSQueries(ctx context.Context, follow bool, begin func(), line func(localapi.DNSQuery) error) error {
	if !s.ready.Load() {
		return notReady()
	}
	begin()
	var since uint64
	for {
		all, more := s.resolver.split.Asked(since)
		for _, q := range all {
			if err := line(localapi.DNSQuery{DNSAnswer: answer("DNSQuery", q.Explanation), Seq: q.Seq, Time: q.Time}); err != nil {
				return err
			}
			since = q.Seq
		}
		if !follow {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.jobs.ctx.Done():
			return nil
		}
	}
}

func notReady() error {
	return &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session is not ready", Hint: "podnet status", Status: http.StatusConflict}
}

// SetNamespace makes short names those of another namespace of the session,
// and returns when the host resolves by it. A session of all namespaces looks
// for those that have come since.
func (s *Session) SetNamespace(ctx context.Context, namespace string) error {
	if !s.ready.Load() {
		return notReady()
	}
	namespace = strings.ToLower(namespace)
	var listed []string
	if s.Request.AllNamespaces {
		listed = s.scope(ctx).namespaces
	}
	done := make(chan error, 1)
	select {
	case s.wishes <- func() { done <- s.switchNamespace(namespace, listed) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.jobs.ctx.Done():
		return notReady()
	}
	return <-done
}

// namespacesEvery is how often a session of all namespaces looks whether there are
// others now. Whoever cannot wait says podnet namespace.
const namespacesEvery = 30 * time.Second

// followNamespaces gives namespaces that have come since short names, and takes
// those of others that have gone.
func (k *keeper) followNamespaces() {
	now := time.Now()
	if !k.Request.AllNamespaces || now.Before(k.listing) || k.jobs.running["namespaces"] != nil {
		return
	}
	k.listing = now.Add(namespacesEvery)
	k.jobs.start("namespaces", func(ctx context.Context) outcome {
		listed, err := k.cluster.Namespaces(ctx)
		return outcome{apply: func() error {
			if err != nil || sameNames(listed, k.names.namespaces) {
				return nil // who may not list them has the full names
			}
			was := k.names.namespaces
			k.names.namespaces = listed
			if err := k.setNames(k.jobs.ctx, k.hosted); err != nil {
				k.names.namespaces = was
				k.warnDNS("the host's resolver does not know the namespaces that there are now: " + err.Error())
			}
			return nil
		}}
	})
}

// sameNames takes no notice of their order.
func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// switchNamespace is for the loop of the session. listed, if not nil, are all
// namespaces that there are.
func (s *Session) switchNamespace(namespace string, listed []string) error {
	was := s.names
	now := was
	now.current = namespace
	if listed != nil {
		now.namespaces = listed
	}
	if !slices.Contains(now.namespaces, namespace) {
		e := &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("namespace %s is not one of the session's: %s", namespace, strings.Join(now.namespaces, ", ")),
			Hint: "podnet disconnect, then podnet connect -n " + namespace, Status: http.StatusNotFound}
		if s.Request.AllNamespaces {
			e.Message, e.Hint = fmt.Sprintf("there is no namespace %s, or none that you can see", namespace), "kubectl get namespaces"
		}
		return e
	}
	s.names = now
	if err := s.setNames(s.jobs.ctx, s.hosted); err != nil {
		s.names = was
		return err
	}
	s.set(func(c *localapi.Connection) { c.Namespace = namespace })
	s.tell(localapi.Event{Type: localapi.EventNamespace, Text: "short names are those of namespace " + namespace})
	return nil
}
