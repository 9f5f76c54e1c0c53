// Package limits has what one user, and one gateway, may have at most: the
// defaults, how an administrator spells others, and what is no good.
package limits

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Limits bound a gateway's work. Those of a user count the user's devices
// together. 0 means no limit where a limit's Least is 0.
type Limits struct {
	// UserConnections are open TCP connections, those being opened included.
	UserConnections int
	// UserOpening are TCP connections that are being opened.
	UserOpening int
	// UserDatagrams are flows of UDP and pings.
	UserDatagrams int
	// UserRate is how many flows may begin in a second; twice as many at once.
	UserRate int
	// UserBytes is the payload in bytes a second, each way.
	UserBytes int
	// UserPeers are devices that are connected at the same time.
	UserPeers int
	// PeerQuestions is how many DNS questions of one device a second go on to the
	// cluster's own DNS server.
	PeerQuestions int
	// Flows are those of all users; 0 is what the limit on open files allows.
	Flows int
	// Peers are devices of all users.
	Peers int
}

// Default is what holds when nobody chooses. A kernel of one core opens some ten
// thousand connections a second: a user's rate leaves four fifths of it to others.
func Default() Limits {
	return Limits{
		UserConnections: 10000, UserOpening: 512, UserDatagrams: 512, UserRate: 2000, UserPeers: 5,
		PeerQuestions: 500, Peers: 1000,
	}
}

// Limit is one of them as it is spelt.
type Limit struct {
	Name, Help string
	Least      int
	field      func(*Limits) *int
}

// most keeps a value within what every platform's int has.
const most = 1 << 31

// All are all limits, in the order of docs/permissions.md.
var All = []Limit{
	{"user-connections", "open TCP connections of a user", 0, func(l *Limits) *int { return &l.UserConnections }},
	{"user-opening", "TCP connections of a user that are being opened", 1, func(l *Limits) *int { return &l.UserOpening }},
	{"user-datagrams", "flows of UDP and pings of a user", 1, func(l *Limits) *int { return &l.UserDatagrams }},
	{"user-rate", "flows of a user that may begin in a second", 0, func(l *Limits) *int { return &l.UserRate }},
	{"user-bytes", "bytes of a user a second, each way", 0, func(l *Limits) *int { return &l.UserBytes }},
	{"user-peers", "devices of a user at the same time", 1, func(l *Limits) *int { return &l.UserPeers }},
	{"peer-questions", "DNS questions of a device a second that go to the cluster's own server", 1, func(l *Limits) *int { return &l.PeerQuestions }},
	{"flows", "open flows of a gateway", 0, func(l *Limits) *int { return &l.Flows }},
	{"peers", "devices at a gateway", 1, func(l *Limits) *int { return &l.Peers }},
}

// Value is the limit's in l.
func (m Limit) Value(l Limits) int { return *m.field(&l) }

// Set changes one limit by NAME=VALUE. The value is a quantity as Kubernetes
// spells them: 500, 20k, 50Mi. It makes *Limits a flag.Value.
func (l *Limits) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("limit %q: want NAME=VALUE, where NAME is one of %s", text, names())
	}
	for _, m := range All {
		if m.Name != name {
			continue
		}
		q, err := resource.ParseQuantity(value)
		if err != nil {
			return fmt.Errorf("limit %s: %q is no number: want one as 500, 20k or 50Mi", name, value)
		}
		n, whole := q.AsInt64()
		if !whole || n < int64(m.Least) || n >= most {
			return fmt.Errorf("limit %s: %s is not a whole number from %d to %d", name, value, m.Least, most-1)
		}
		*m.field(l) = int(n)
		return nil
	}
	return fmt.Errorf("limit %q: want one of %s", name, names())
}

// String lists what differs from the defaults.
func (l *Limits) String() string {
	var all []string
	for _, m := range All {
		if v := m.Value(*l); v != m.Value(Default()) {
			all = append(all, fmt.Sprintf("%s=%d", m.Name, v))
		}
	}
	return strings.Join(all, ",")
}

func names() string {
	all := make([]string, len(All))
	for i, m := range All {
		all[i] = m.Name
	}
	return strings.Join(all, ", ")
}
