package enrol

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestAddressComesBack(t *testing.T) {
	s := begin(t)
	s.enrol("first", "alice", 1)
	address := s.wantIn("first").Address4
	s.remove("first")
	s.after(23 * time.Hour)
	s.enrol("second", "alice", 2)
	if got := s.wantIn("second").Address4; got != address {
		t.Errorf("alice's laptop had %s and comes back to %s", address, got)
	}
	s.enrol("both", "alice", 3) // the same laptop, while a key is being rotated
	if got := s.wantIn("both").Address4; got == address {
		t.Error("two sessions share an address")
	}
}

func TestFullPool(t *testing.T) {
	c := DefaultConfig()
	c.Pool = netip.MustParsePrefix("198.18.0.0/29") // .2 to .6
	c.MaxPerUser = 9
	s := begin(t)
	s.book = NewBook(c)
	s.look()
	seen := map[netip.Addr]bool{}
	for i := range 5 {
		n := fmt.Sprint(i)
		s.enrol(n, n, i)
		a := s.wantIn(n).Address4
		if !a.IsValid() || seen[a] || a == netip.MustParseAddr("198.18.0.1") || a == netip.MustParseAddr("198.18.0.0") || a == netip.MustParseAddr("198.18.0.7") {
			t.Fatalf("%s got %s", n, a)
		}
		seen[a] = true
	}
	s.enrol("late", "late", 9)
	if a := s.wantIn("late"); a.Address4.IsValid() || !a.Address6.IsValid() {
		t.Errorf("late has %s and %s, want IPv6 only", a.Address4, a.Address6)
	}
	s.remove("0")
	if a := s.wantIn("late"); a.Address4.IsValid() {
		t.Errorf("late got %s out of quarantine", a.Address4)
	}
	s.after(quarantine)
	for _, n := range []string{"1", "2", "3", "4", "late"} {
		s.peer(n).Renew++
	}
	s.look()
	if a := s.wantIn("late"); !a.Address4.IsValid() {
		t.Error("late has no IPv4 address although one is free")
	}
}

// TestReservationsAreBounded has somebody enrol a new device again and again: there are
// never more reservations than addresses.
func TestReservationsAreBounded(t *testing.T) {
	a := newAddresses(netip.MustParsePrefix("198.18.0.0/27"))
	now := time.Unix(1_700_000_000, 0)
	for i := range 1000 {
		o, uid := owner{"mallory", fmt.Sprint("device", i)}, fmt.Sprint(i)
		a.forget(now)
		addr := a.choose(uid, o)
		if !addr.IsValid() {
			t.Fatalf("device %d has no address", i)
		}
		now = now.Add(time.Second)
		a.release(now, addr, uid, o)
	}
	if n := len(a.reserved); n > 32 || len(a.lastHeld) > 32 {
		t.Errorf("%d reservations of 29 addresses, last held %d", n, len(a.lastHeld))
	}
}

// TestAllocatorKeepsItsPromises takes and gives back at random: no address is
// held twice, none goes to another user within the quarantine, and a device
// gets its old one back when nobody holds it.
func TestAllocatorKeepsItsPromises(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		a := newAddresses(netip.MustParsePrefix("198.18.0.0/27"))
		now := time.Unix(1_700_000_000, 0)
		type holding struct {
			addr netip.Addr
			o    owner
		}
		held := map[string]holding{}
		type past struct {
			user string
			at   time.Time
		}
		left := map[netip.Addr]past{}
		for step := range 200 {
			now = now.Add(time.Duration(r.IntN(120)) * time.Second)
			uid := fmt.Sprint(r.IntN(24))
			if h, ok := held[uid]; ok {
				a.release(now, h.addr, uid, h.o)
				delete(held, uid)
				left[h.addr] = past{h.o.user, now}
				continue
			}
			o := owner{fmt.Sprint("user", r.IntN(4)), fmt.Sprint("device", r.IntN(3))}
			a.forget(now)
			addr := a.choose(uid, o)
			if !addr.IsValid() {
				continue
			}
			if !a.usable(addr) {
				t.Fatalf("seed %d step %d: %s is not for peers", seed, step, addr)
			}
			for other, h := range held {
				if h.addr == addr {
					t.Fatalf("seed %d step %d: %s and %s both hold %s", seed, step, uid, other, addr)
				}
			}
			if p, ok := left[addr]; ok && p.user != o.user && now.Sub(p.at) < quarantine {
				t.Fatalf("seed %d step %d: %s went from %s to %s after %v", seed, step, addr, p.user, o.user, now.Sub(p.at))
			}
			held[uid] = holding{addr, o}
		}
	}
}
