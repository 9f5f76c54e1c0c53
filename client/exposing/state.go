package exposing

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
)

const (
	// quickly is how often the API is asked how an exposure stands that is on its
	// way, slowly how often otherwise.
	quickly = 250 * time.Millisecond
	slowly  = 5 * time.Second
	// eager is how long it is asked quickly.
	eager = time.Minute
	// check is how often the Service is looked at, which anybody may change.
	check = 30 * time.Second
	// again is when what failed is tried again, muchLater what was refused.
	again     = 2 * time.Second
	muchLater = 30 * time.Second
)

// Member is what the session is to the cluster: who gets the traffic, and which
// gateways bring it.
type Member struct {
	Peer     string
	Gateways []v1alpha1.Gateway
}

// addresses are where the gateways are in the tunnel.
func (m Member) addresses() []netip.Addr {
	var all []netip.Addr
	for _, g := range m.Gateways {
		if k, err := key.ParsePublic(g.PublicKey); err == nil {
			all = append(all, k.Address6())
		}
	}
	return all
}

// state is all that a Manager knows. It is pure: next says what is to be done, and
// the done functions say what came of it.
type state struct {
	user   string
	lease  time.Duration
	member Member
	all    map[id]*exposure
}

// id is what an exposure and its Service are called in the cluster.
type id struct{ namespace, name string }

func (i id) String() string { return i.namespace + "/" + i.name }

func (i id) compare(o id) int {
	return cmp.Or(strings.Compare(i.namespace, o.namespace), strings.Compare(i.name, o.name))
}

// exposure is one `podnet expose`:
//
//	       +------------------ another Peer, its lease over -------------------+
//	       v                                                                   |
//	create --> poll ... poll (admitted, host) --> point --> ready: poll, renew, point
//	  |          |                                                             |
//	  +----------+---- stopped, refused, deleted by somebody --> delete --> (gone)
//
// One thing is under way at a time.
type exposure struct {
	id
	req       localapi.ExposeRequest
	local     string
	protocol  steer.Protocol
	ports     []uint16
	relayPort uint16
	began     time.Time
	// settled is true once it was ready; until then a no of anybody ends it.
	settled bool
	// stopping says that it is to go, failed why, if nobody asked for it.
	stopping bool
	failed   error

	busy  bool
	retry time.Time // nothing before that
	err   error     // why
	// object is the Exposure as the cluster had it the last time, nil: it has none
	// of ours.
	object *v1alpha1.Exposure
	// since is when the object was written, renewed when its lease began.
	since, renewed, polled time.Time
	renew                  int64
	due                    bool // to be renewed
	// pointed is when the Service was last seen to lead to led.
	led     string
	pointed time.Time
}

func newState(user string, lease time.Duration) *state {
	return &state{user: user, lease: lease, all: map[id]*exposure{}}
}

// sorted are all exposures, in the order of their names.
func (s *state) sorted() []*exposure {
	return slices.SortedFunc(maps.Values(s.all), func(a, b *exposure) int { return a.compare(b.id) })
}

// verb is what is to be done.
type verb string

const (
	nothing  verb = ""
	doCreate verb = "create"
	doPoll   verb = "poll"  // read the object
	doPoint  verb = "point" // have the Service lead to the gateway's
	doRenew  verb = "renew"
	doDelete verb = "delete"
)

// next is what is to be done about an exposure now.
func (s *state) next(e *exposure, now time.Time) verb {
	switch {
	case e.busy || now.Before(e.retry):
		return nothing
	case e.object != nil && (e.stopping || e.object.Spec.Peer != s.member.Peer):
		return doDelete
	case e.stopping || s.member.Peer == "":
		return nothing
	case e.object == nil:
		return doCreate
	case e.due:
		return doRenew
	case e.admitted() && (e.led != e.host() || now.Sub(e.pointed) >= check):
		return doPoint
	case now.Sub(e.polled) >= e.every(now):
		return doPoll
	}
	return nothing
}

func (e *exposure) every(now time.Time) time.Duration {
	if !e.ready() && now.Sub(e.since) < eager {
		return quickly
	}
	return slowly
}

// step is what is to be done now; it notes that this is under way. What is over is
// forgotten.
func (s *state) step(now time.Time) (out []action) {
	for _, e := range s.sorted() {
		if v := s.next(e, now); v != nothing {
			e.busy = true
			out = append(out, action{v, e})
		} else if e.stopping && e.object == nil && !e.busy {
			delete(s.all, e.id)
		}
	}
	return out
}

type action struct {
	verb verb
	*exposure
}

// wait is how long nothing has to be done unless something happens.
func (s *state) wait() time.Duration {
	for _, e := range s.all {
		if !e.ready() || e.stopping || e.due {
			return quickly / 2
		}
	}
	return slowly
}

// relayed is what the relay is to let in.
func (s *state) relayed() []relay.Exposure {
	var out []relay.Exposure
	for _, e := range s.sorted() {
		if !e.stopping {
			out = append(out, relay.Exposure{Name: e.String(), Port: e.relayPort, Protocol: e.protocol, Local: e.local, Gateways: s.member.addresses()})
		}
	}
	return out
}

// admitted says that the gateway leads to this machine.
func (e *exposure) admitted() bool {
	return e.host() != "" && meta.IsStatusConditionTrue(e.object.Status.Conditions, v1alpha1.ConditionReady)
}

// host is the gateway's Service, "" as long as it is not known.
func (e *exposure) host() string {
	if e.object == nil {
		return ""
	}
	return e.object.Status.Host
}

// ready says that who goes by the name comes to this machine.
func (e *exposure) ready() bool { return e.admitted() && e.led == e.host() }

// write is the object to write.
func (s *state) write(e *exposure) *v1alpha1.Exposure {
	o := &v1alpha1.Exposure{Spec: v1alpha1.ExposureSpec{User: s.user, Peer: s.member.Peer, Renew: 1, Local: e.local[:min(len(e.local), 320)]}}
	o.Namespace, o.Name = e.namespace, e.name
	for _, p := range e.ports {
		o.Spec.Ports = append(o.Spec.Ports, v1alpha1.ExposurePort{Port: int32(p), Protocol: v1alpha1.ExposureProtocol(e.protocol), RelayPort: int32(e.relayPort)})
	}
	return o
}
