package lease

import (
	"testing"
	"time"
)

// TestLedger: objects count for as long as the Peer that they name asks for, and
// while it is their user's they know it.
func TestLedger(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Unix(1_700_000_000, 0)
	laptops := []Laptop{{Name: "pc", User: "alice", Lease: time.Minute}}
	claim := func(uid, user string, renew int64) Claim {
		return Claim{UID: uid, User: user, Peer: "pc", Renew: renew}
	}

	l := NewLedger(day)
	l.Look(begin, true, true, laptops, nil) // what comes next is not older than the process
	all, next := l.Look(begin, true, true, laptops, []Claim{claim("a", "alice", 1), claim("b", "bob", 1)})
	if !all[0].Running() || !all[0].Live || all[0].Laptop.Name != "pc" {
		t.Errorf("alice's: %+v", all[0])
	}
	if !all[1].Running() || all[1].Live {
		t.Errorf("bob's, who names alice's laptop: %+v", all[1])
	}
	if !next.Equal(begin.Add(time.Minute)) {
		t.Errorf("next look after %v", next.Sub(begin))
	}

	at := begin.Add(50 * time.Second)
	l.Look(at, true, true, laptops, []Claim{claim("a", "alice", 2), claim("b", "bob", 1)})
	at = begin.Add(100 * time.Second)
	if all, _ = l.Look(at, true, true, nil, []Claim{claim("a", "alice", 2), claim("b", "bob", 1)}); !all[0].Running() || all[0].Live {
		t.Errorf("renewed, its laptop gone: %+v", all[0])
	}
	at = begin.Add(110 * time.Second)
	if all, next = l.Look(at, true, true, nil, []Claim{claim("a", "alice", 2), claim("b", "bob", 1)}); all[0].Running() || all[0].Over {
		t.Errorf("not renewed: %+v", all[0])
	}
	if want := at.Add(jobKeep); !next.Equal(want) { // an orphan with a short lease goes soon
		t.Errorf("next look %v too late", next.Sub(want))
	}
	at = at.Add(jobKeep)
	if all, _ = l.Look(at, true, true, nil, []Claim{claim("a", "alice", 2), claim("b", "bob", 1)}); !all[0].Over {
		t.Errorf("it stays: %+v", all[0])
	}

	l.Look(at, true, true, laptops, []Claim{claim("c", "alice", 1)})
	l.Look(at.Add(time.Hour/2), true, false, laptops, []Claim{claim("c", "alice", 1)})
	if all, _ = l.Look(at.Add(time.Hour/2), true, true, laptops, []Claim{claim("c", "alice", 1)}); !all[0].Running() || !all[0].Deadline().Equal(at.Add(time.Hour/2+30*time.Second)) {
		t.Errorf("the API server is back: %+v", all[0])
	}
}
