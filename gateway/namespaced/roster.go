package namespaced

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/ranges"
	"podnet.dev/gateway/virtual"
	"podnet.dev/internal/desk"
	"podnet.dev/internal/key"
	"podnet.dev/internal/remap"
)

const (
	// keep is how long a Peer whose lease is over can be renewed yet.
	keep = 10 * time.Minute
	// remembered bounds the Peers there are, those that count no more included.
	remembered = 2 * maxPeers
)

// admitted is who is in, and at which addresses they see the namespace.
type admitted struct {
	peers []enrol.Admitted
	maps  map[netip.Addr]remap.Map
}

// roster is the Peers that laptops have told of: what the Kubernetes API is for the
// whole cluster's gateway. It lives in memory only; after a restart the laptops tell
// of them again.
type roster struct {
	book *enrol.Book
	log  *slog.Logger
	// entry is what the gateway says of itself, and network what of the cluster.
	entry   podnet.Gateway
	network func() podnet.Network
	// enforce makes these be admitted, and nobody else, and reports whether that has
	// worked.
	enforce func(admitted) bool

	mu     sync.Mutex
	peers  map[string]*peer
	serial int
	in     map[string]bool // by UID
	next   chan time.Time  // of one: when to look again
}

// peer is one Peer as its laptop wished it last.
type peer struct {
	uid, secret string
	created     time.Time
	spec        podnet.PeerSpec
	key         key.Public
	status      podnet.PeerStatus
}

func newRoster(c enrol.Config, log *slog.Logger, now time.Time) *roster {
	r := &roster{book: enrol.NewBook(c), log: log, peers: map[string]*peer{}, in: map[string]bool{}, next: make(chan time.Time, 1)}
	r.book.Plan(now, world(nil)) // so that who comes next is not taken for older than us
	return r
}

// world is the peers as package enrol sees it. There is no other gateway, and no
// API server that could be away.
func world(peers []enrol.Peer) enrol.World {
	return enrol.World{Peers: peers, PolicyHolds: true, Connected: true, Leader: true}
}

// call does what a laptop wants.
func (r *roster) call(now time.Time, c desk.Call) desk.Answer {
	answer := desk.Answer{Version: desk.Version}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peers[c.Name]
	if p != nil && subtle.ConstantTimeCompare([]byte(p.secret), []byte(c.Secret)) != 1 {
		answer.Error = &desk.Error{Code: desk.CodeNotYours, Message: "a peer of this name is somebody else's"}
		return answer
	}
	if c.Verb == desk.Delete {
		delete(r.peers, c.Name)
		r.lookLocked(now)
		return answer
	}
	if p, answer.Error = r.putLocked(now, c, p); answer.Error != nil {
		return answer
	}
	r.lookLocked(now)
	answer.Status = p.status.DeepCopy()
	return answer
}

// putLocked takes over what is wished of a Peer, which p is if there is one.
func (r *roster) putLocked(now time.Time, c desk.Call, p *peer) (*peer, *desk.Error) {
	public, err := key.ParsePublic(c.Spec.PublicKey)
	if err != nil {
		return nil, &desk.Error{Code: desk.CodeInvalid, Message: err.Error()}
	}
	if p == nil {
		if len(r.peers) >= remembered {
			return nil, &desk.Error{Code: desk.CodeFull, Message: fmt.Sprintf("the gateway remembers %d peers already", len(r.peers))}
		}
		r.serial++
		p = &peer{uid: strconv.Itoa(r.serial), secret: c.Secret, created: now, spec: *c.Spec.DeepCopy(), key: public}
		r.peers[c.Name] = p
		return p, nil
	}
	was, is := p.spec, *c.Spec.DeepCopy()
	if was.User != is.User || was.PublicKey != is.PublicKey || was.LeaseSeconds != is.LeaseSeconds || was.Device != is.Device || was.ClientVersion != is.ClientVersion {
		return nil, &desk.Error{Code: desk.CodeInvalid, Message: "only renew, candidates and virtual may change"}
	}
	is.Renew = max(is.Renew, was.Renew)
	p.spec = is
	return p, nil
}

// look has what has passed with time follow.
func (r *roster) look(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookLocked(now)
}

// lookLocked plans anew and acts on it.
func (r *roster) lookLocked(now time.Time) {
	names := make([]string, 0, len(r.peers))
	for name := range r.peers {
		names = append(names, name)
	}
	slices.Sort(names) // so that a look at the same peers gives the same
	var objects []enrol.Peer
	for _, name := range names {
		p := r.peers[name]
		objects = append(objects, enrol.Peer{UID: p.uid, Name: name, Created: p.created, User: p.spec.User, Device: p.spec.Device,
			Key: p.key, Lease: time.Duration(p.spec.LeaseSeconds) * time.Second, Renew: p.spec.Renew})
	}
	plan := r.book.Plan(now, world(objects))
	network := r.network()
	all := admitted{peers: plan.Admitted, maps: map[netip.Addr]remap.Map{}}
	for i, name := range names {
		p := r.peers[name]
		m := p.report(plan.Peers[i], r.entry, network, now)
		if plan.Peers[i].Ready && !m.IsZero() {
			for _, a := range []netip.Addr{plan.Peers[i].Address4, p.key.Address6()} {
				if a.IsValid() {
					all.maps[a] = m
				}
			}
		}
	}
	for _, i := range plan.DeletePeers {
		delete(r.peers, names[i])
	}
	r.tell(plan.Admitted)
	next := plan.Next
	if soon := now.Add(time.Second); !r.enforce(all) && (next.IsZero() || soon.Before(next)) {
		next = soon
	}
	select { // the newest word counts
	case <-r.next:
	default:
	}
	r.next <- next
}

// tell logs who came and who went.
func (r *roster) tell(now []enrol.Admitted) {
	in := make(map[string]bool, len(now))
	for _, p := range now {
		in[p.UID] = true
		if !r.in[p.UID] {
			r.log.Info("peer admitted", "peer", p.Name, "says", p.User, "key", p.Key, "addr", p.Address4)
		}
	}
	for uid := range r.in {
		if !in[uid] {
			r.log.Info("peer cut", "uid", uid)
		}
	}
	r.in = in
}

// report brings a Peer's status up to date, and returns what is mapped for it.
func (p *peer) report(v enrol.Verdict, entry podnet.Gateway, network podnet.Network, now time.Time) remap.Map {
	s := &p.status
	s.ObservedRenew = v.Renew
	ready := metav1.Condition{Type: podnet.ConditionReady, Status: metav1.ConditionFalse, Reason: v.Reason, Message: v.Message, LastTransitionTime: metav1.NewTime(now)}
	s.Gateways, s.Virtual = nil, nil
	if !v.Ready {
		meta.SetStatusCondition(&s.Conditions, ready)
		meta.RemoveStatusCondition(&s.Conditions, podnet.ConditionVirtual)
		return remap.Map{}
	}
	ready.Status = metav1.ConditionTrue
	meta.SetStatusCondition(&s.Conditions, ready)
	expires := metav1.NewTime(v.Expires)
	s.ExpiresAt, s.Address4, s.Address6 = &expires, "", p.key.Address6().String()
	if v.Address4.IsValid() {
		s.Address4 = v.Address4.String()
	}
	s.Gateways, s.Network = []podnet.Gateway{entry}, &network
	m := virtual.Of(p.spec.Virtual, ranges.Parse(slices.Concat(network.PodCIDRs, network.ServiceCIDRs)))
	s.Virtual = m.Told()
	switch c := (metav1.Condition{Type: podnet.ConditionVirtual, Status: metav1.ConditionTrue, Reason: podnet.ReasonMapped, Message: "Real and virtual addresses lead to the same.", LastTransitionTime: metav1.NewTime(now)}); {
	case len(p.spec.Virtual) == 0:
		meta.RemoveStatusCondition(&s.Conditions, podnet.ConditionVirtual)
	case m.Refused != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, podnet.ReasonNotMapped, m.Refused
		meta.SetStatusCondition(&s.Conditions, c)
	default:
		meta.SetStatusCondition(&s.Conditions, c)
	}
	return m.Map
}
