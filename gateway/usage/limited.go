package usage

import (
	"slices"
	"sync/atomic"
	"time"

	"podnet.dev/internal/forward"
	"podnet.dev/internal/limits"
)

// limitShown is how long a user is told of a limit after something was last
// refused for it.
const limitShown = time.Minute

// limitMemory is what a user is told, beside the names of limits, when it is the
// gateway's memory.
const limitMemory = "memory"

// FlowLimits are what the forwarder keeps.
func FlowLimits(l limits.Limits) forward.Limits {
	return forward.Limits{Connections: l.UserConnections, Opening: l.UserOpening, Datagrams: l.UserDatagrams, Rate: l.UserRate, Bytes: l.UserBytes}
}

// limitNames are the limits behind the forwarder's refusals.
var limitNames = map[forward.Refusal]string{
	forward.OverConnections: "user-connections", forward.OverOpening: "user-opening", forward.OverDatagrams: "user-datagrams",
	forward.OverRate: "user-rate", forward.OverFlows: "flows", forward.OverMemory: limitMemory, forward.WasShed: limitMemory,
}

// ByLimit adds up refusals by the names of limits; each name is there.
func ByLimit(refused map[forward.Refusal]uint64) map[string]uint64 {
	all := map[string]uint64{}
	for why, name := range limitNames {
		all[name] += refused[why]
	}
	return all
}

// Limited knows which users are at which limits.
type Limited struct {
	usage func() []forward.Usage
	full  atomic.Bool // of memory

	users map[string]*limitedUser
}

type limitedUser struct {
	refused map[forward.Refusal]uint64
	last    map[string]time.Time // of a refusal, by the limit's name
}

// NewLimited makes one of what the forwarder says of users.
func NewLimited(usage func() []forward.Usage) *Limited {
	return &Limited{usage: usage, users: map[string]*limitedUser{}}
}

// SetFull says whether the gateway is out of memory.
func (l *Limited) SetFull(full bool) { l.full.Store(full) }

// Look finds the names of the limits that each user is at, sorted.
func (l *Limited) Look(now time.Time) map[string][]string {
	at := map[string][]string{}
	here := map[string]bool{}
	full := l.full.Load()
	for _, u := range l.usage() {
		here[u.Owner] = true
		had := l.users[u.Owner]
		if had == nil {
			had = &limitedUser{last: map[string]time.Time{}}
			l.users[u.Owner] = had
		}
		for why, n := range u.Refused {
			if n > had.refused[why] {
				had.last[limitNames[why]] = now
			}
		}
		had.refused = u.Refused
		for name, last := range had.last {
			if now.Sub(last) >= limitShown && !(name == limitMemory && full) {
				delete(had.last, name)
				continue
			}
			at[u.Owner] = append(at[u.Owner], name)
		}
		slices.Sort(at[u.Owner])
	}
	for user := range l.users {
		if !here[user] {
			delete(l.users, user)
		}
	}
	return at
}
