// Package audit tells from an API server's audit log alone who had access to which
// namespace through podnet, and when. It knows podnet's objects by their names only,
// as whoever investigates years later would.
//
// The log has to have the bodies of requests about podnet's objects (level Request);
// docs/permissions.md has the policy. Where it has none (level Metadata) every write
// of an object counts as a renewal, and for as long as a lease can be.
package audit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
)

// longestLease is what a lease can be at most without the verb export: where the log
// does not tell it, access may have lasted this long after the last write.
const longestLease = 15 * time.Minute

// Everywhere is the namespace of a Span that means all of them.
const Everywhere = "*"

// A Span is a time in which a user could reach a namespace. It begins with the write
// that allowed it, and ends with a deletion, or one lease after the last renewal that
// was accepted.
type Span struct {
	User, Namespace, Peer string
	From, Until           time.Time
	Deleted               bool // it did not wait for the lease
}

func (s Span) String() string {
	how := "lease over"
	if s.Deleted {
		how = "deleted"
	}
	return fmt.Sprintf("%s in %s by %s: %s to %s (%s)", s.User, s.Namespace, s.Peer, s.From.Format(time.RFC3339), s.Until.Format(time.RFC3339), how)
}

// event is what counts of an audit.k8s.io/v1 Event.
type event struct {
	Stage            string
	Verb             string
	RequestURI       string
	User             struct{ Username string }
	ImpersonatedUser *struct{ Username string }
	ObjectRef        *struct{ APIGroup, Resource, Subresource, Namespace, Name string }
	ResponseStatus   *struct{ Code int }
	RequestObject    *struct {
		Metadata struct{ Name string }
		Spec     struct {
			Peer, Scope  string
			LeaseSeconds int
			Renew        int64
		}
	}
	RequestReceivedTimestamp time.Time
}

// object is a Peer or an Access through its life.
type object struct {
	namespace, name string
	user            string // who made it
	peer, scope     string // of an Access
	lease           time.Duration
	periods         []period
	gone            bool
}

// period is a time in which an object was alive.
type period struct {
	from, until time.Time
	deleted     bool
}

// log is what was read so far. A name that is used again is another object.
type log struct {
	peers, accesses []*object
}

// Read reads a log, of events as JSON, one a line, and gives the spans in the order in
// which they began.
func Read(r io.Reader) ([]Span, error) {
	var events []event
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 4<<20)
	for n := 1; lines.Scan(); n++ {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("line %d of the audit log: %w", n, err)
		}
		if e.counts() {
			events = append(events, e)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	// The log is in the order in which requests ended.
	slices.SortStableFunc(events, func(a, b event) int { return a.RequestReceivedTimestamp.Compare(b.RequestReceivedTimestamp) })
	var l log
	for _, e := range events {
		l.note(e)
	}
	return l.spans(), nil
}

// counts says whether the event is an accepted write of a Peer or an Access.
func (e event) counts() bool {
	if e.Stage != "ResponseComplete" || e.ObjectRef == nil || e.ObjectRef.APIGroup != "podnet.dev" || e.ObjectRef.Subresource != "" ||
		e.ResponseStatus == nil || e.ResponseStatus.Code < 200 || e.ResponseStatus.Code > 299 {
		return false
	}
	if u, err := url.Parse(e.RequestURI); err == nil && u.Query().Has("dryRun") {
		return false
	}
	return e.ObjectRef.Resource == "peers" || e.ObjectRef.Resource == "accesses"
}

// user is whom the API server took the caller for.
func (e event) user() string {
	if e.ImpersonatedUser != nil {
		return e.ImpersonatedUser.Username
	}
	return e.User.Username
}

func (l *log) note(e event) {
	all := &l.peers
	if e.ObjectRef.Resource == "accesses" {
		all = &l.accesses
	}
	name := e.ObjectRef.Name
	if name == "" && e.RequestObject != nil {
		name = e.RequestObject.Metadata.Name
	}
	switch e.Verb {
	case "create":
		o := &object{namespace: e.ObjectRef.Namespace, name: name, user: e.user(), peer: name, lease: longestLease}
		if spec := e.RequestObject; spec != nil {
			if spec.Spec.LeaseSeconds > 0 {
				o.lease = time.Duration(spec.Spec.LeaseSeconds) * time.Second
			}
			o.peer, o.scope = spec.Spec.Peer, spec.Spec.Scope
		}
		if e.ObjectRef.Resource == "accesses" {
			o.lease = l.leaseOf(o)
		}
		*all = append(*all, o)
		o.renewed(e.RequestReceivedTimestamp)
	case "patch", "update":
		if e.RequestObject != nil && e.RequestObject.Spec.Renew == 0 {
			return // it tells of something else, such as where the laptop is
		}
		for _, o := range *all {
			if o.is(e.ObjectRef.Namespace, name) {
				o.renewed(e.RequestReceivedTimestamp)
			}
		}
	case "delete", "deletecollection":
		for _, o := range *all {
			if o.is(e.ObjectRef.Namespace, name) || name == "" && o.is(e.ObjectRef.Namespace, o.name) {
				o.deleted(e.RequestReceivedTimestamp)
			}
		}
	}
}

// leaseOf is the lease of an Access: its Peer's.
func (l *log) leaseOf(access *object) time.Duration {
	for _, p := range slices.Backward(l.peers) {
		if p.name == access.peer && p.user == access.user {
			return p.lease
		}
	}
	return longestLease
}

func (o *object) is(namespace, name string) bool {
	return !o.gone && o.namespace == namespace && o.name == name
}

// renewed prolongs the last period, or begins another where that was over.
func (o *object) renewed(at time.Time) {
	if n := len(o.periods); n == 0 || o.periods[n-1].until.Before(at) {
		o.periods = append(o.periods, period{from: at})
	}
	o.periods[len(o.periods)-1].until = at.Add(o.lease)
}

func (o *object) deleted(at time.Time) {
	o.gone = true
	if last := &o.periods[len(o.periods)-1]; at.Before(last.until) {
		last.until, last.deleted = at, true
	}
}

// spans are the times in which an Access and its Peer, of the same user, were both alive.
func (l *log) spans() (all []Span) {
	for _, a := range l.accesses {
		for _, p := range l.peers {
			if p.name != a.peer || p.user != a.user {
				continue
			}
			for _, pa := range a.periods {
				for _, pp := range p.periods {
					s := Span{User: a.user, Namespace: a.namespace, Peer: p.name, From: pa.from, Until: pa.until, Deleted: pa.deleted}
					if a.scope == "Cluster" {
						s.Namespace = Everywhere
					}
					if pp.from.After(s.From) {
						s.From = pp.from
					}
					if pp.until.Before(s.Until) {
						s.Until, s.Deleted = pp.until, pp.deleted
					}
					if s.From.Before(s.Until) {
						all = append(all, s)
					}
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Span) int {
		if c := a.From.Compare(b.From); c != 0 {
			return c
		}
		return strings.Compare(a.User+a.Namespace, b.User+b.Namespace)
	})
	return all
}
