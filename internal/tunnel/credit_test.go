package tunnel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"podnet.dev/internal/key"
)

func newTestCredits(look func()) *credits { return newCredits(100, look) }

func (c *credits) wantCredit(t *testing.T, peer uint64, room, slow bool) {
	t.Helper()
	if r, s := c.credit(peer); r != room || s != slow {
		t.Errorf("peer %d: room %v, slow %v; want %v, %v", peer, r, s, room, slow)
	}
}

// Whoever waits for the computer finds out within slowSend that it is a peer that
// does not take what it is sent, and goes on without it.
func TestSlowPeerHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		c := newTestCredits(func() { looks++ })
		c.add(1, 61)
		c.remove(1, 1) // its session goes on
		c.add(2, 40)
		start := time.Now()
		time.AfterFunc(3*time.Millisecond, func() { c.remove(2, 1) })
		c.wait()
		if d := time.Since(start); d != 3*time.Millisecond {
			t.Errorf("waited %v, want until something arrived", d)
		}
		c.add(2, 1)
		c.wait()
		if d := time.Since(start); d <= slowSend || d > slowSend+2*time.Millisecond {
			t.Errorf("waited %v for a peer that takes nothing, want %v", d, slowSend)
		}
		c.wantCredit(t, 1, 60 < narrow/unit, true)
		c.wantCredit(t, 2, true, false)
		c.add(2, 40)
		c.wait() // what the slow one has counts for nobody

		time.Sleep(500*time.Millisecond - time.Since(start))
		c.remove(1, 30) // 60 units a second
		if looks != 1 {
			t.Errorf("the TUN was told %d times that a slow peer moves", looks)
		}
		c.wantCredit(t, 1, false, true)
		c.remove(1, 30)
		c.wantCredit(t, 1, true, true) // one packet at a time, however slow
		time.Sleep(slowFor + 1)
		c.wantCredit(t, 1, true, false)
	})
}

// Who waits for a slow peer to have room is told of each step, up to the one with
// which the peer is not slow any more.
func TestSlownessEndsWithAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		c := newTestCredits(func() { looks++ })
		c.add(1, 2*narrow/unit)
		c.remove(1, 1)
		time.Sleep(2 * slowSend)
		c.wantCredit(t, 1, false, true)
		for steps := 0; ; {
			c.remove(1, 1)
			if steps++; looks != steps {
				t.Fatalf("told of %d steps, want %d", looks, steps)
			}
			if room, slow := c.credit(1); !slow && room {
				return
			}
			time.Sleep(slowSend)
		}
	})
}

// What never arrives, because no session carries it, is forgotten.
func TestCreditForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCredits(func() {})
		c.add(1, narrow/unit)
		time.Sleep(2 * slowSend)
		c.wantCredit(t, 1, false, true)
		time.Sleep(lostAfter)
		c.wantCredit(t, 1, true, false)
		c.remove(1, 10) // late ones do no harm
		if c.sum != 0 || len(c.shares) != 0 {
			t.Errorf("still counts %d of %d peers", c.sum, len(c.shares))
		}
		c.add(0, 10) // it is for nobody, and so arrives nowhere
		if c.sum != 0 {
			t.Errorf("counts %d for nobody", c.sum)
		}
	})
}

// What was for a peer before its session has mostly been dropped by the device. Who
// comes back to an address for which much was still under way must not wait for it.
func TestCreditBeginsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCredits(func() {})
		c.add(1, narrow/unit)
		time.Sleep(200 * time.Millisecond)
		c.wantCredit(t, 1, false, true)
		c.remove(1, 10) // the first that a session carries
		c.wantCredit(t, 1, true, false)
		c.add(1, 10)
		time.Sleep(2 * slowSend)
		c.remove(1, 5) // from now on it is the wire that is slow
		c.wantCredit(t, 1, true, false)
	})
}

func TestPeersAreToldByTheirAddresses(t *testing.T) {
	c := newTestCredits(func() {})
	var peers []Peer
	for _, ips := range [][]string{{"198.18.0.2/32", "fd70::2/128"}, {"10.0.0.0/8"}, {"10.1.0.0/16", "::/0"}} {
		k, err := key.NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		p := Peer{PublicKey: k.Public()}
		for _, ip := range ips {
			p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(ip))
		}
		peers = append(peers, p)
	}
	set := func(ps ...Peer) {
		s, err := newPeerSet(key.Public{1}, ps)
		if err != nil {
			t.Fatal(err)
		}
		c.setPeers(s)
	}
	set(peers...)
	ids := c.routes.Load().ids
	for a, want := range map[string]int{
		"198.18.0.2": 0, "fd70::2": 0, "10.2.3.4": 1, "10.1.2.3": 2, "fd70::3": 2, "198.18.0.3": -1,
	} {
		id := uint64(0)
		if want >= 0 {
			id = ids[peers[want].PublicKey]
		}
		if got := c.of(netip.MustParseAddr(a)); got != id {
			t.Errorf("%s is peer %d's, want %d", a, got, id)
		}
	}
	if c.of(netip.Addr{}) != 0 {
		t.Error("no address is somebody's")
	}
	// Numbers stay, and are given out once.
	first := ids[peers[0].PublicKey]
	c.add(first, 10)
	c.add(ids[peers[1].PublicKey], 10)
	set(peers[0])
	if c.sum != 10 {
		t.Errorf("counts %d units after a peer has gone, want 10", c.sum)
	}
	set(peers...)
	again := c.routes.Load().ids
	if again[peers[0].PublicKey] != first || again[peers[1].PublicKey] == ids[peers[1].PublicKey] {
		t.Errorf("peers were %v and are %v", ids, again)
	}
}

// sortTUN is a sorter that does not sort.
type sortTUN struct{ tun.Device }

func (sortTUN) Sort(func(netip.Addr) uint64, func(uint64) (room, slow bool)) {}
func (sortTUN) Look()                                                        {}

// Each packet of real traffic of all sizes through a real device is credited to the
// peer for whom it was read.
func TestCreditDoesNotDrift(t *testing.T) {
	binds := bindtest.NewChannelBinds()
	var tunnels [2]*Tunnel
	var tuns [2]*tuntest.ChannelTUN
	var keys [2]key.Private
	for i := range tunnels {
		k, err := key.NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		tuns[i], keys[i] = tuntest.NewChannelTUN(), k
		if tunnels[i], err = New(sortTUN{tuns[i].TUN()}, binds[i], Config{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
		defer tunnels[i].Close()
	}
	other, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	for i := range tunnels {
		o := 1 - i
		ip := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(o)}), 32)
		err := tunnels[i].SetPeers([]Peer{
			{PublicKey: keys[o].Public(), Endpoint: fmt.Sprintf("127.0.0.1:%d", o), AllowedIPs: []netip.Prefix{ip}},
			{PublicKey: other.Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	c := tunnels[0].credits
	peer := c.of(netip.AddrFrom4([4]byte{10, 0, 0, 1}))
	const base = 1000 // shows a count that goes down too far, too
	c.add(peer, base)
	for size := 20; size < 5000; size += 37 {
		p := make([]byte, size)
		copy(p, tuntest.Ping(netip.AddrFrom4([4]byte{10, 0, 0, 1}), netip.AddrFrom4([4]byte{10, 0, 0, 0}))[:20])
		binary.BigEndian.PutUint16(p[2:], uint16(size))
		tuns[0].Outbound <- p
		<-tuns[1].Inbound
	}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		sum := c.shares[peer].sum
		c.mu.Unlock()
		if sum == base {
			return
		}
		if time.Since(start) > 2*time.Second {
			t.Fatalf("the count has drifted by %d units", sum-base)
		}
	}
}
