package ui

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// homePage is what the overview shows beside the sessions.
type homePage struct {
	// Contexts and Profiles are what one could connect to.
	Contexts []localapi.Context
	Profiles []localapi.Profile
	Events   []localapi.Event
	Sessions []card
}

// card is a session on the overview.
type card struct {
	localapi.Connection
	State      localapi.State
	RoundTrip  plot
	Throughput plot
}

func overview(ctx context.Context, s *site, v *view) error {
	h := homePage{Events: s.news.last()}
	taken := map[string]bool{}
	for _, c := range v.Status.Connections {
		taken[c.Context], taken[c.Name] = true, true
		samples := s.history.of(c.Name)
		h.Sessions = append(h.Sessions, card{c, stateOf(v.Status, c), roundTrips(samples), throughput(samples)})
	}
	contexts, err := s.client.Contexts(ctx, v.visit.kube)
	h.Contexts = slices.DeleteFunc(contexts, func(c localapi.Context) bool { return taken[c.Name] })
	profiles, more := s.client.Profiles(ctx)
	h.Profiles = slices.DeleteFunc(profiles, func(p localapi.Profile) bool { return taken[p.Name] })
	v.Page = h
	if err == nil {
		err = more
	}
	return err
}

// stateOf is one session's state.
func stateOf(s localapi.Status, c localapi.Connection) localapi.State {
	if c.Since == nil {
		return localapi.Connecting
	}
	for _, w := range s.Warnings {
		if w.Severity == "high" && (w.Connection == c.Name || w.Connection == "") {
			return localapi.Degraded
		}
	}
	return localapi.Connected
}

// servicesPage is the Services of one namespace.
type servicesPage struct {
	Namespace  string
	Namespaces []string
	Services   []localapi.Service
}

func services(ctx context.Context, s *site, v *view) error {
	c := servicesPage{}
	defer func() { v.Page = c }()
	if v.Session == nil {
		return nil
	}
	client := s.client.For(v.Session.Name)
	c.Namespace, c.Namespaces = v.Session.Namespace, v.Session.Namespaces
	var err error
	if len(c.Namespaces) == 0 { // all are open
		if c.Namespaces, err = client.Namespaces(ctx); err != nil {
			return err
		}
	}
	if ns := v.Query.Get("namespace"); slices.Contains(c.Namespaces, ns) {
		c.Namespace = ns
	}
	all, err := client.Services(ctx, c.Namespace)
	c.Services = slices.DeleteFunc(all, func(o localapi.Service) bool { return !has(v.Query.Get("q"), o.Name) })
	return err
}

// shownQuestions is how many questions a page has, the newest first.
const shownQuestions = 100

// namesPage is what was asked of a session's DNS proxy.
type namesPage struct {
	All   []localapi.DNSQuery
	Total int
}

func names(ctx context.Context, s *site, v *view) error {
	q := namesPage{}
	defer func() { v.Page = q }()
	if v.Session == nil {
		return nil
	}
	want, ours := v.Query.Get("q"), v.Query.Get("of")
	err := s.client.For(v.Session.Name).DNSQueries(ctx, false, func(o localapi.DNSQuery) error {
		if cluster := o.Class != "other"; has(want, o.Name) && (ours == "" || (ours == "cluster") == cluster) {
			q.All = append(q.All, o)
		}
		return nil
	})
	slices.Reverse(q.All)
	q.Total = len(q.All)
	q.All = q.All[:min(q.Total, shownQuestions)]
	return err
}

// steeringPage is what a session steers and exposes.
type steeringPage struct {
	Rules     []localapi.SteerRule
	Exposures []localapi.Exposure
}

func steering(ctx context.Context, s *site, v *view) error {
	r := steeringPage{}
	defer func() { v.Page = r }()
	if v.Session == nil {
		return nil
	}
	c := s.client.For(v.Session.Name)
	rules, err := c.Steered(ctx, false, "")
	if err != nil {
		return err
	}
	r.Rules = rules.Rules
	exposed, err := c.Exposed(ctx, false, "")
	r.Exposures = exposed.Exposures
	return err
}

// rulePage is one rule, what it took, and what that carried.
type rulePage struct {
	Rule        localapi.SteerRule
	Requests    []localapi.SteeredRequest
	Connections []connection
}

// connection is a connection that a rule took.
type connection struct {
	localapi.Inspection
	Exchanges []exchange
}

// exchange is a request and its response, in lines.
type exchange struct {
	localapi.Exchange
	ID                string
	Asked, Answered   string // their first lines, where HTTP/1 begins there
	Request, Response []string
	Open              bool
}

// shownRequests is how many requests a page has, the newest first.
const shownRequests = 50

func rule(ctx context.Context, s *site, v *view) error {
	v.Title = "Rule " + v.Query.Get("rule")
	if v.Session == nil {
		return nil
	}
	c := s.client.For(v.Session.Name)
	rules, err := c.Steered(ctx, false, "")
	if err != nil {
		return err
	}
	at := slices.IndexFunc(rules.Rules, func(r localapi.SteerRule) bool { return r.Name == v.Query.Get("rule") })
	if at < 0 {
		return &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no rule " + v.Query.Get("rule") + " any more"}
	}
	one := rulePage{Rule: rules.Rules[at]}
	defer func() { v.Page = &one }()
	err = c.Requests(ctx, one.Rule.Name, false, func(q localapi.SteeredRequest) error {
		one.Requests = append(one.Requests, q)
		return nil
	})
	slices.Reverse(one.Requests)
	one.Requests = one.Requests[:min(len(one.Requests), shownRequests)]
	if err != nil || !one.Rule.Inspect {
		return err
	}
	seen, err := c.Inspect(ctx, one.Rule.Name)
	for _, i := range seen.Connections {
		one.Connections = append(one.Connections, inspected(i, v.Query.Get("open")))
	}
	slices.Reverse(one.Connections)
	return err
}

// inspected is a connection in lines, its newest exchange first.
func inspected(i localapi.Inspection, open string) connection {
	out := connection{Inspection: i}
	var in, back words.Wire
	for _, e := range i.Exchanges {
		x := exchange{Exchange: e, ID: exchangeID(i.Time, e.Time), Asked: words.FirstLine(e.In), Answered: words.FirstLine(e.Out),
			Request: in.Lines(e.In, e.InMore), Response: back.Lines(e.Out, e.OutMore)}
		x.Open = x.ID == open
		out.Exchanges = append(out.Exchanges, x)
	}
	slices.Reverse(out.Exchanges)
	return out
}

// exchangeID names an exchange on a page.
func exchangeID(connection, exchange time.Time) string {
	return "x" + strconv.FormatInt(connection.UnixNano(), 36) + "-" + strconv.FormatInt(exchange.UnixNano(), 36)
}

// has says whether a name has what was looked for in it.
func has(want, name string) bool {
	return strings.Contains(strings.ToLower(name), strings.ToLower(want))
}
