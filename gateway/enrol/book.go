// Package enrol decides which peers a gateway admits, for how long, at which
// addresses and with which namespaces. It is pure: it is told of objects and of
// the time, and answers with a plan; it knows no API server and no tunnel.
package enrol

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/lease"
	"podnet.dev/internal/key"
)

// Config bounds what a gateway takes on.
type Config struct {
	// Pool is where IPv4 tunnel addresses come from.
	Pool netip.Prefix
	// MaxPeers and MaxPerUser bound the live peers.
	MaxPeers, MaxPerUser int
	// Keep is how long an expired object stays for people to look at.
	Keep time.Duration
}

// FrozenLimit is how long a lease lasts at most while the API server is away.
const FrozenLimit = lease.FrozenLimit

// DefaultConfig is what security.md promises.
func DefaultConfig() Config {
	return Config{Pool: netip.MustParsePrefix("198.18.0.0/16"), MaxPeers: 1000, MaxPerUser: 5, Keep: 24 * time.Hour}
}

// Peer is a Peer object as far as enrolment cares.
type Peer struct {
	UID, Name    string
	Created      time.Time
	User, Device string
	Key          key.Public
	Lease        time.Duration
	Renew        int64
	Beyond
	// Of the status: the address the leading gateway gave, whether it is Ready,
	// and whether this very renew has already expired.
	Address4 netip.Addr
	Ready    bool
	Ended    bool
}

// Beyond is what a peer may have beside the cluster: admission has asked.
type Beyond struct {
	Routes  []netip.Prefix
	Domains []string // in lower case, with the final dot
}

// Equal reports whether two are the same, in the same order.
func (b Beyond) Equal(o Beyond) bool {
	return slices.Equal(b.Routes, o.Routes) && slices.Equal(b.Domains, o.Domains)
}

// Access is an Access object as far as enrolment cares.
type Access struct {
	UID, Namespace, Name string
	User, Peer           string
	Renew                int64
	Cluster              bool
	Ended                bool // as Peer.Ended
}

// World is all that is known at one moment. Objects that are being deleted are
// not in it.
type World struct {
	Peers    []Peer
	Accesses []Access
	// PolicyHolds: the admission policies were seen to refuse what they must.
	PolicyHolds bool
	// Connected: the API server answers, so renewals and deletions arrive.
	Connected bool
	// Leader: this gateway allocates addresses. The others take them from status.
	Leader bool
}

// Plan is what follows from a World.
type Plan struct {
	Admitted []Admitted // in the order of age
	Peers    []Verdict
	Accesses []Verdict
	// DeletePeers and DeleteAccesses are indexes into the World's lists:
	// objects that expired long ago.
	DeletePeers, DeleteAccesses []int
	// Next is when to ask again even if nothing changes; zero for never.
	Next time.Time
}

// Admitted is a peer to let in.
type Admitted struct {
	UID, Name, User string
	Device          string
	Key             key.Public
	Address4        netip.Addr // invalid when none is left
	Address6        netip.Addr
	Namespaces      []string // sorted
	Cluster         bool
	Beyond
}

// Addresses are those that it has in the tunnel.
func (a Admitted) Addresses() []netip.Addr {
	all := []netip.Addr{a.Address6}
	if a.Address4.IsValid() {
		all = append(all, a.Address4)
	}
	return all
}

// Verdict is what to tell about the object with the same index in the World.
type Verdict struct {
	// Pending: another gateway decides, or has yet to; there is nothing to tell.
	Pending         bool
	Ready           bool
	Reason, Message string
	Address4        netip.Addr
	Renew           int64 // the one that Ready speaks of
	Expires         time.Time
}

// Book remembers leases and addresses from one World to the next.
type Book struct {
	config    Config
	begun     bool
	frozen    bool
	peers     map[string]*peerRecord
	accesses  map[string]*accessRecord
	addresses *addresses
}

type peerRecord struct {
	lease.Lease
	owner    owner
	length   time.Duration
	address4 netip.Addr
	present  bool
}

type accessRecord struct {
	lease.Lease
	length  time.Duration
	present bool
}

// NewBook makes an empty Book.
func NewBook(c Config) *Book {
	return &Book{config: c, peers: map[string]*peerRecord{}, accesses: map[string]*accessRecord{}, addresses: newAddresses(c.Pool)}
}

// Plan takes note of a World and says what follows.
func (b *Book) Plan(now time.Time, w World) Plan {
	c := lease.Circumstances{Now: now, Policy: w.PolicyHolds, Connected: w.Connected, Initial: !b.begun}
	b.begun = true
	if b.frozen && w.Connected {
		b.thaw(now)
	}
	b.frozen = !w.Connected
	b.addresses.forget(now)

	p := Plan{Peers: make([]Verdict, len(w.Peers)), Accesses: make([]Verdict, len(w.Accesses))}
	b.sightPeers(c, w, &p)
	admitted := b.admit(now, w, &p)
	b.grant(c, w, &p, admitted)
	for _, a := range p.Admitted {
		slices.Sort(a.Namespaces)
	}
	return p
}

func (b *Book) thaw(now time.Time) {
	for _, r := range b.peers {
		r.Thaw(now, r.length)
	}
	for _, r := range b.accesses {
		r.Thaw(now, r.length)
	}
}

func (p *Plan) wake(t time.Time) {
	if !t.IsZero() && (p.Next.IsZero() || t.Before(p.Next)) {
		p.Next = t
	}
}

// sightPeers notes all leases, and gives back the addresses of peers that are
// gone or whose time is over.
func (b *Book) sightPeers(c lease.Circumstances, w World, p *Plan) {
	for _, r := range b.peers {
		r.present = false
	}
	for i, o := range w.Peers {
		r, known := b.peers[o.UID]
		if !known {
			r = &peerRecord{}
			b.peers[o.UID] = r
		}
		r.present, r.owner, r.length = true, owner{o.User, o.Device}, o.Lease
		r.Sight(c, o.Renew, o.Lease, o.Ended, !known)
		p.wake(r.Tick(c))
		if !r.Running() {
			b.letGo(c.Now, o.UID, r)
			if b.outstayed(c.Now, r.Lease, o.Lease, false, p) {
				p.DeletePeers = append(p.DeletePeers, i)
			}
		}
	}
	for uid, r := range b.peers {
		if !r.present {
			b.letGo(c.Now, uid, r)
			delete(b.peers, uid)
		}
	}
}

// outstayed reports whether an object that does not count any more may go, or
// asks to be woken when it may.
func (b *Book) outstayed(now time.Time, l lease.Lease, length time.Duration, orphan bool, p *Plan) bool {
	yes, at := l.Outstayed(now, b.config.Keep, length, orphan)
	if !yes {
		p.wake(at)
	}
	return yes
}

func (b *Book) letGo(now time.Time, uid string, r *peerRecord) {
	if r.address4.IsValid() {
		b.addresses.release(now, r.address4, uid, r.owner)
		r.address4 = netip.Addr{}
	}
}

// admit decides on every peer, oldest first, and returns the indexes into
// Plan.Admitted by name.
func (b *Book) admit(now time.Time, w World, p *Plan) map[string]int {
	order := make([]int, 0, len(w.Peers))
	for i, o := range w.Peers {
		if r := b.peers[o.UID]; r.Running() {
			order = append(order, i)
		} else {
			p.Peers[i] = refusal(&r.Lease, "The lease was not renewed in time.")
		}
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(w.Peers[i].Created.Compare(w.Peers[j].Created), cmp.Compare(w.Peers[i].UID, w.Peers[j].UID))
	})
	welcome := b.welcome(now, w, p, order)

	// Whoever has an address keeps it; only then do the others choose.
	for _, i := range welcome {
		o, r := w.Peers[i], b.peers[w.Peers[i].UID]
		if (!r.address4.IsValid() || !w.Leader) && o.Address4.IsValid() && o.Address4 != r.address4 {
			b.letGo(now, o.UID, r)
			if b.addresses.claim(o.Address4, o.UID, r.owner) {
				r.address4 = o.Address4
			}
		}
	}
	admitted := make(map[string]int, len(welcome))
	for _, i := range welcome {
		o, r := w.Peers[i], b.peers[w.Peers[i].UID]
		if !r.address4.IsValid() {
			if w.Leader {
				r.address4 = b.addresses.choose(o.UID, r.owner)
			} else if !o.Ready {
				p.Peers[i] = Verdict{Pending: true}
				continue
			}
		}
		v := Verdict{Ready: true, Reason: podnet.ReasonAdmitted, Message: "The peer may connect.", Address4: r.address4, Renew: r.Honoured(), Expires: r.Deadline()}
		switch {
		case !w.PolicyHolds:
			v.Message = "The peer may connect until its lease ends. It cannot be renewed: the admission policies are missing (podnet install puts them back)."
		case !r.address4.IsValid():
			v.Message = "The peer may connect, over IPv6 only: no IPv4 tunnel address is left."
		}
		p.Peers[i] = v
		admitted[o.Name] = len(p.Admitted)
		p.Admitted = append(p.Admitted, Admitted{UID: o.UID, Name: o.Name, User: o.User, Device: o.Device, Key: o.Key, Address4: r.address4, Address6: o.Key.Address6(), Beyond: o.Beyond})
	}
	return admitted
}

// welcome drops those whose key is taken and those above the limits. A key and
// its IPv6 address are one: a collision of addresses is a conflict as well.
func (b *Book) welcome(now time.Time, w World, p *Plan, order []int) []int {
	byAddress6 := map[netip.Addr]string{}
	perUser := map[string]int{}
	var welcome []int
	for _, i := range order {
		o, r := w.Peers[i], b.peers[w.Peers[i].UID]
		a := o.Key.Address6()
		switch first, taken := byAddress6[a]; {
		case o.Key.IsZero():
			p.Peers[i] = Verdict{Reason: podnet.ReasonConflict, Message: "The public key is not valid.", Renew: r.Renew()}
		case taken:
			p.Peers[i] = Verdict{Reason: podnet.ReasonConflict, Message: fmt.Sprintf("The older Peer %s has this public key.", first), Renew: r.Renew()}
		case perUser[o.User] >= b.config.MaxPerUser:
			p.Peers[i] = Verdict{Reason: podnet.ReasonLimitReached, Message: fmt.Sprintf("%s has %d live Peers already, and may have no more.", o.User, b.config.MaxPerUser), Renew: r.Renew()}
		case len(welcome) >= b.config.MaxPeers:
			p.Peers[i] = Verdict{Reason: podnet.ReasonLimitReached, Message: fmt.Sprintf("The gateway has %d live Peers already, and takes no more.", b.config.MaxPeers), Renew: r.Renew()}
		default:
			byAddress6[a] = o.Name
			perUser[o.User]++
			welcome = append(welcome, i)
			continue
		}
		b.letGo(now, o.UID, r)
	}
	return welcome
}

func refusal(l *lease.Lease, over string) Verdict {
	if l.Unproven() {
		return Verdict{Reason: podnet.ReasonPolicyMissing, Renew: l.Renew(),
			Message: "The admission policies were missing when this was written: renew it once they are back (podnet install)."}
	}
	return Verdict{Reason: podnet.ReasonExpired, Message: over, Renew: l.Renew()}
}

// orphanLease is how long an Access counts whose Peer was never there to say.
const orphanLease = 300 * time.Second

// grant decides on every Access and adds the namespaces to the admitted.
func (b *Book) grant(c lease.Circumstances, w World, p *Plan, admitted map[string]int) {
	byName := make(map[string]Peer, len(w.Peers))
	for _, o := range w.Peers {
		byName[o.Name] = o
	}
	for _, r := range b.accesses {
		r.present = false
	}
	for i, o := range w.Accesses {
		owner, exists := byName[o.Peer]
		exists = exists && owner.User == o.User
		r, known := b.accesses[o.UID]
		if !known {
			r = &accessRecord{length: orphanLease}
			b.accesses[o.UID] = r
		}
		length := r.length // as when the Peer was there
		if exists {
			length = owner.Lease
		}
		r.present, r.length = true, length
		r.Sight(c, o.Renew, length, o.Ended, !known)
		p.wake(r.Tick(c))
		at, in := admitted[o.Peer]
		switch {
		case !r.Running():
			p.Accesses[i] = refusal(&r.Lease, "The access was not renewed in time.")
			if b.outstayed(c.Now, r.Lease, length, !exists, p) {
				p.DeleteAccesses = append(p.DeleteAccesses, i)
			}
		case !exists:
			p.Accesses[i] = Verdict{Reason: podnet.ReasonPeerMissing, Message: fmt.Sprintf("There is no Peer %s of %s.", o.Peer, o.User), Renew: r.Honoured()}
		case !in:
			p.Accesses[i] = Verdict{Reason: podnet.ReasonPeerMissing, Message: fmt.Sprintf("Peer %s is not admitted.", o.Peer), Renew: r.Honoured()}
		default:
			p.Accesses[i] = Verdict{Ready: true, Reason: podnet.ReasonAdmitted, Message: "The peer may reach this.", Renew: r.Honoured(), Expires: r.Deadline()}
			a := &p.Admitted[at]
			if o.Cluster {
				a.Cluster = true
			} else if !slices.Contains(a.Namespaces, o.Namespace) {
				a.Namespaces = append(a.Namespaces, o.Namespace)
			}
		}
	}
	for uid, r := range b.accesses {
		if !r.present {
			delete(b.accesses, uid)
		}
	}
}
