package exposure

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"time"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/lease"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// Book remembers leases, and the ports that were given, from one World to the
// next.
type Book struct {
	leases *lease.Ledger
	ports  ports
}

// NewBook makes an empty Book. An expired exposure stays for keep, for people to
// look at.
func NewBook(keep time.Duration) *Book {
	return &Book{leases: lease.NewLedger(keep), ports: ports{given: map[string]map[way]uint16{}}}
}

// Plan takes note of a World and says what follows.
func (b *Book) Plan(now time.Time, w World) Plan {
	claims := make([]lease.Claim, len(w.Objects))
	order := make([]int, len(w.Objects))
	for i, o := range w.Objects {
		claims[i], order[i] = lease.Claim{UID: o.UID, User: o.User, Peer: o.Peer, Renew: o.Renew, Ended: o.Ended}, i
	}
	slices.SortFunc(order, func(i, j int) int { // who was there first stays
		return cmp.Or(w.Objects[i].Created.Compare(w.Objects[j].Created), cmp.Compare(w.Objects[i].UID, w.Objects[j].UID))
	})
	standings, next := b.leases.Look(now, w.PolicyHolds, w.Connected, w.Laptops, claims)
	p := Plan{Verdicts: make([]Verdict, len(w.Objects)), Next: next}
	users := map[string]int{}
	for _, i := range order {
		o, s := w.Objects[i], standings[i]
		v := judge(o, s, w.PolicyHolds, users[o.User], len(p.Live))
		if p.Verdicts[i] = v; v.Ready {
			users[o.User]++
			p.Live = append(p.Live, Live{UID: o.UID, Namespace: o.Namespace, Name: o.Name,
				Laptop: s.Laptop.Key.RelayAddress6(), Service: ServiceName(o.UID), Ports: slices.Clone(o.Ports)})
		}
	}
	for i, s := range standings {
		if s.Over {
			p.Delete = append(p.Delete, i)
		}
	}
	b.ports.assign(p.Live, w.Services, w.Leader)
	return p
}

// judge decides on one exposure beside the older ones: so many of its user's,
// so many in all.
func judge(o Object, s lease.Standing, policy bool, own, all int) Verdict {
	v := Verdict{Renew: s.Honoured()}
	switch {
	case s.Unproven():
		v.Reason, v.Renew = podnet.ReasonPolicyMissing, s.Renew()
		v.Message = "The admission policies were missing when this was written: renew it once they are back (podnet install)."
	case !s.Running():
		v.Reason, v.Renew, v.Message = podnet.ReasonExpired, s.Renew(), "The exposure was not renewed in time."
	case valid(o) != nil:
		v.Reason, v.Message = podnet.ReasonInvalid, fmt.Sprintf("The exposure cannot be. %s.", valid(o))
	case !s.Live:
		v.Reason, v.Message = podnet.ReasonPeerMissing, fmt.Sprintf("No Peer %s of %s is admitted.", o.Peer, o.User)
	case own >= MaxPerUser:
		v.Reason, v.Message = podnet.ReasonLimitReached, fmt.Sprintf("%s has %d exposures already, and may have no more.", o.User, own)
	case all >= MaxAll:
		v.Reason, v.Message = podnet.ReasonLimitReached, fmt.Sprintf("There are %d exposures already, and the gateway takes no more.", all)
	default:
		v.Ready, v.Reason, v.Message, v.Expires = true, podnet.ReasonAdmitted, "The exposed ports lead to the laptop.", s.Deadline()
		if !policy {
			v.Message = "The exposed ports lead to the laptop until the lease ends. It cannot be renewed: the admission policies are missing (podnet install puts them back)."
		}
	}
	return v
}

// serviceName is what a Service may be called, of all Kubernetes versions.
var serviceName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

// valid says why an exposure cannot be. The schema says most of it, too.
func valid(o Object) error {
	if !serviceName.MatchString(o.Name) {
		return fmt.Errorf("name: %q is not one of a Service", o.Name)
	}
	if n := len(o.Ports); n < 1 || n > MaxPorts {
		return fmt.Errorf("ports: there are %d, and must be 1 to %d", n, MaxPorts)
	}
	seen := map[way]bool{}
	for _, p := range o.Ports {
		w := way{p.Protocol, p.Port}
		switch {
		case p.Protocol != steer.TCP && p.Protocol != steer.UDP:
			return fmt.Errorf("protocol: it is %q, and must be %s or %s", p.Protocol, steer.TCP, steer.UDP)
		case p.Port == 0:
			return fmt.Errorf("port: 0 is none")
		case p.Relay < 1024 || p.Relay == control.LivePort:
			return fmt.Errorf("relayPort: it is %d, and must be above 1023 and not %d", p.Relay, control.LivePort)
		case seen[w]:
			return fmt.Errorf("ports: %d/%s is there twice", p.Port, p.Protocol)
		}
		seen[w] = true
	}
	return nil
}
