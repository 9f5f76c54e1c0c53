package enrol

import (
	"hash/fnv"
	"net/netip"
	"time"
)

const (
	// sticky is how long an address waits for the device that had it.
	sticky = 24 * time.Hour
	// quarantine is how long an address that a user left goes to nobody else:
	// longer than any flow to it lives on.
	quarantine = 300 * time.Second
)

// owner is who an address is for.
type owner struct{ user, device string }

// addresses allocates IPv4 tunnel addresses. The first choice for a device is
// a hash of its name, so the same laptop mostly gets the same address even
// from a gateway that has never seen it.
type addresses struct {
	pool     netip.Prefix
	held     map[netip.Addr]string  // by UID of a Peer
	left     map[netip.Addr]leaving // given back within the quarantine
	reserved map[owner]reservation
	lastHeld map[netip.Addr]owner // by whom, as long as that owner's reservation lasts
}

type leaving struct {
	user string
	at   time.Time
}

type reservation struct {
	addr  netip.Addr
	until time.Time
}

func newAddresses(pool netip.Prefix) *addresses {
	return &addresses{pool: pool.Masked(), held: map[netip.Addr]string{}, left: map[netip.Addr]leaving{}, reserved: map[owner]reservation{}, lastHeld: map[netip.Addr]owner{}}
}

// usable reports whether an address may belong to a peer at all: the first two
// of the pool are the network's and the gateway's, the last is the broadcast.
func (a *addresses) usable(addr netip.Addr) bool {
	return a.pool.Contains(addr) && a.offset(addr) >= 2 && a.offset(addr) < a.size()-1
}

// claim takes a given address, unless another Peer holds it.
func (a *addresses) claim(addr netip.Addr, uid string, o owner) bool {
	if !a.usable(addr) {
		return false
	}
	if holder, taken := a.held[addr]; taken && holder != uid {
		return false
	}
	a.held[addr] = uid
	delete(a.left, addr)
	if last, ok := a.lastHeld[addr]; ok && last != o && a.reserved[last].addr == addr {
		delete(a.reserved, last) // an address waits for one device: there are as many as anybody names
	}
	a.reserved[o] = reservation{addr: addr} // for as long as it is held, and a day more
	a.lastHeld[addr] = o
	return true
}

// choose takes a free address for a device. The zero Addr means none is left.
func (a *addresses) choose(uid string, o owner) netip.Addr {
	if r, ok := a.reserved[o]; ok && a.claim(r.addr, uid, o) {
		return r.addr
	}
	// Two rounds: the second takes an address that waits for another device,
	// which is better than none.
	for _, polite := range []bool{true, false} {
		h := fnv.New32a()
		_, _ = h.Write([]byte(o.user + "\x00" + o.device))
		start := h.Sum32() % a.size()
		for i := range a.size() {
			addr := a.at((start + i) % a.size())
			if polite && a.waitsForAnother(addr, o) {
				continue
			}
			if l, ok := a.left[addr]; ok && l.user != o.user {
				continue
			}
			if _, taken := a.held[addr]; !taken && a.claim(addr, uid, o) {
				return addr
			}
		}
	}
	return netip.Addr{}
}

// waitsForAnother reports whether an address is kept for another device.
func (a *addresses) waitsForAnother(addr netip.Addr, o owner) bool {
	last, ok := a.lastHeld[addr]
	return ok && last != o && a.reserved[last].addr == addr
}

// release gives an address back.
func (a *addresses) release(now time.Time, addr netip.Addr, uid string, o owner) {
	if a.held[addr] != uid {
		return
	}
	delete(a.held, addr)
	a.left[addr] = leaving{user: o.user, at: now}
	if r, ok := a.reserved[o]; ok && r.addr == addr {
		a.reserved[o] = reservation{addr: addr, until: now.Add(sticky)}
	}
}

// forget drops what has passed. It is called before addresses are chosen.
func (a *addresses) forget(now time.Time) {
	for addr, l := range a.left {
		if now.Sub(l.at) >= quarantine {
			delete(a.left, addr)
		}
	}
	for o, r := range a.reserved {
		if _, held := a.held[r.addr]; !held && !now.Before(r.until) {
			delete(a.reserved, o)
			if a.lastHeld[r.addr] == o {
				delete(a.lastHeld, r.addr)
			}
		}
	}
}

// size is the number of addresses in the pool, which is IPv4 and at most a /8.
func (a *addresses) size() uint32 { return 1 << (32 - a.pool.Bits()) }

func (a *addresses) offset(addr netip.Addr) uint32 { return number(addr) - number(a.pool.Addr()) }

func (a *addresses) at(offset uint32) netip.Addr {
	n := number(a.pool.Addr()) + offset
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
