package given

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/packet"
	"podnet.dev/internal/remap"
)

// elsewhere is where the host sees a cluster: its IPv4 networks at others, its IPv6
// ones as well.
func elsewhere(t testing.TB, pairs ...string) remap.Map {
	t.Helper()
	if pairs == nil {
		pairs = []string{"10.244.0.0/16", "100.80.0.0/16", "10.96.0.0/16", "100.81.0.0/16", "fd00:10:244::/56", "fdaa:bb:cc::/56"}
	}
	var all []remap.Pair
	for p := range slices.Chunk(pairs, 2) {
		pair, err := remap.ParsePair(p[0], p[1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pair)
	}
	m, err := remap.Parse(all)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func these(all ...string) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, text := range all {
			if !yield(addr(text)) {
				return
			}
		}
	}
}

// from is the host's own address.
func from(to netip.Addr) netip.Addr {
	if to.Is4() {
		return addr("198.18.0.4")
	}
	return addr("fd70:6f64:6e65:7401::4")
}

func datagram(to string) []byte {
	dst := addr(to)
	b := make([]byte, packet.HeaderIP(dst)+packet.HeaderUDP+5)
	packet.PutUDP(b, netip.AddrPortFrom(from(dst), 4000), netip.AddrPortFrom(dst, 5353))
	return b
}

const fin, syn, rst, ack = 0x01, 0x02, 0x04, 0x10

func segment(to string, flags byte) []byte {
	dst := addr(to)
	b := make([]byte, packet.HeaderIP(dst)+20)
	packet.PutIP(b, packet.TCP, from(dst), dst)
	tcp := b[packet.HeaderIP(dst):]
	tcp[0], tcp[2], tcp[3], tcp[12], tcp[13] = 0x80, 0x1f, 0x90, 5<<4, flags
	return b
}

func ping(to string) []byte {
	dst := addr(to)
	b := make([]byte, packet.HeaderIP(dst)+packet.HeaderEcho)
	packet.PutEchoRequest(b, from(dst), dst, 1, 1)
	return b
}

// unreachable is an error of the host's about a datagram that came from there.
func unreachable(to string) []byte {
	dst := addr(to)
	came := make([]byte, packet.HeaderIP(dst)+packet.HeaderUDP+5)
	packet.PutUDP(came, netip.AddrPortFrom(dst, 5353), netip.AddrPortFrom(from(dst), 4000))
	b := make([]byte, packet.UnreachableSize(came))
	packet.PutUnreachable(b, came, packet.NoPort)
	return b
}

// fragments are those of a datagram of 4000 bytes.
func fragments(t testing.TB, to string) (all [][]byte) {
	t.Helper()
	dst := addr(to)
	b := make([]byte, packet.HeaderIP(dst)+packet.HeaderUDP+4000)
	packet.PutUDP(b, netip.AddrPortFrom(from(dst), 4000), netip.AddrPortFrom(dst, 5353))
	if !packet.Fragment(b, 1420, func(n int) []byte { all = append(all, make([]byte, n)); return all[len(all)-1] }) {
		t.Fatal("no fragments")
	}
	return all
}

// host sends one batch of packets, and keeps what comes back.
type host struct {
	tun.Device
	batch, back [][]byte
}

func (h *host) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, p := range h.batch {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(h.batch), nil
}

func (h *host) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		h.back = append(h.back, bytes.Clone(b[offset:]))
	}
	return len(bufs), nil
}

// sends returns what of a batch gets into the tunnel, and what comes back at once.
func sends(t testing.TB, book *Book, batch ...[]byte) (passed, back [][]byte, first []netip.Addr) {
	t.Helper()
	h := &host{batch: batch}
	d := New(h, book, func(to netip.Addr) { first = append(first, to) })
	bufs, sizes := make([][]byte, len(batch)), make([]int, len(batch))
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	const offset = 16
	n, err := d.Read(bufs, sizes, offset)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		passed = append(passed, bufs[i][offset:offset+sizes[i]])
	}
	return passed, h.back, first
}

// TestGuessesAreRefused: of a batch only that passes which goes to an address that was
// given, or nowhere near the cluster; the rest comes back, from where it was sent to.
func TestGuessesAreRefused(t *testing.T) {
	var book Book
	book.Guard(elsewhere(t))
	book.Give(these("100.81.0.20", "fdaa:bb:cc::7", "192.0.2.1"))
	long, long6 := fragments(t, "100.80.1.7"), fragments(t, "fdaa:bb:cc::9")
	fine := [][]byte{
		segment("100.81.0.20", syn), datagram("100.81.0.20"), ping("100.81.0.20"), ping("fdaa:bb:cc::7"), // given
		datagram("198.18.0.1"), segment("10.244.1.7", syn), ping("100.82.0.1"), // none of the book's business
		segment("100.80.1.7", ack), segment("fdaa:bb:cc::9", rst), segment("100.80.1.7", fin|ack), unreachable("100.80.1.7"), unreachable("fdaa:bb:cc::9"), // of what is under way
	}
	refused := [][]byte{
		segment("100.80.1.7", syn), segment("fdaa:bb:cc::9", syn), segment("100.80.1.7", syn|fin), segment("100.80.1.7", syn|ack), segment("100.80.1.7", syn|ack)[:30],
		datagram("100.80.1.7"), datagram("fdaa:bb:cc::9"), ping("100.80.1.7"), ping("fdaa:bb:cc::9"), long[0], long6[0],
	}
	refused[4][3] = 30 // a header that is cut off
	cut := datagram("100.80.1.7")
	cut[3]++ // than it is long
	dropped := slices.Concat(long[1:], long6[1:], [][]byte{cut})
	fine = append(fine, []byte{0x45}, bytes.Repeat([]byte{0x77}, 60)) // WireGuard knows no way for them
	batch := slices.Concat(fine, refused, dropped)
	rand.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })

	passed, back, first := sends(t, &book, batch...)
	in := func(p []byte, all [][]byte) bool {
		return slices.ContainsFunc(all, func(q []byte) bool { return bytes.Equal(p, q) })
	}
	want := slices.DeleteFunc(slices.Clone(batch), func(p []byte) bool { return !in(p, fine) })
	if !slices.EqualFunc(passed, want, bytes.Equal) {
		t.Errorf("%d packets passed, want %d, in order", len(passed), len(want))
	}
	if len(back) != len(refused) {
		t.Errorf("%d packets came back, want %d", len(back), len(refused))
	}
	for _, b := range back {
		p, ok := packet.Parse(b)
		if !ok || !p.Err() {
			t.Fatalf("%x came back", b)
		}
		quoted, ok := packet.Parse(p.Payload()[8:])
		if six := p.Is6(); ok && (quoted.Src != p.Dst || quoted.Dst != p.Src) || six && p.Payload()[1] != 1 || !six && p.Payload()[1] != 13 {
			t.Errorf("about %v to %v: ICMP %d/%d from %v to %v", quoted.Src, quoted.Dst, p.Payload()[0], p.Payload()[1], p.Src, p.Dst)
		}
	}
	if n, last := book.Refused(); n != uint64(len(refused)+len(dropped)) || !last.IsValid() {
		t.Errorf("%d refused, the last to %v, want %d", n, last, len(refused)+len(dropped))
	}
	if len(first) != 1 {
		t.Errorf("told of %v, want the first alone", first)
	}
}

// TestNothingIsVirtual: a session that sees the cluster where it is has no book.
func TestNothingIsVirtual(t *testing.T) {
	var book Book
	book.Expect(remap.Map{})
	book.Guard(remap.Map{})
	book.Give(func(func(netip.Addr) bool) { t.Error("somebody wants to know what is given") })
	batch := [][]byte{segment("10.244.1.7", syn), datagram("100.80.1.7"), {0x45}, {}}
	if passed, back, _ := sends(t, &book, batch...); len(passed) != len(batch) || back != nil {
		t.Errorf("%d of %d passed, %d came back", len(passed), len(batch), len(back))
	}
	if book.view.Load() != nil || book.Open(addr("100.80.1.7")) {
		t.Error("there is a book")
	}
}

// TestMoves: what is expected is guarded and remembered before it counts; what is no
// more is forgotten, as is what stands for another one now.
func TestMoves(t *testing.T) {
	var book Book
	passes := func(to string) bool {
		passed, _, _ := sends(t, &book, segment(to, syn))
		return len(passed) == 1
	}
	check := func(when string, want map[string]bool) {
		t.Helper()
		for to, ok := range want {
			if passes(to) != ok {
				t.Errorf("%s: to %s %v", when, to, !ok)
			}
		}
	}
	first := elsewhere(t, "10.244.0.0/16", "100.80.0.0/16", "10.96.0.0/16", "100.81.0.0/16")
	second := elsewhere(t, "10.244.0.0/16", "100.81.0.0/16", "10.96.0.0/16", "100.82.0.0/16", "10.97.0.0/16", "100.83.0.0/16")
	check("directly", map[string]bool{"100.80.1.7": true})
	book.Expect(first)
	book.Give(these("100.80.1.7"))
	check("about to move", map[string]bool{"100.80.1.7": true, "100.80.1.8": false})
	book.Guard(first)
	if !book.Open(addr("100.81.0.20")) || book.Open(addr("100.82.0.20")) {
		t.Error("opened what is none of it, or not what is")
	}
	check("moved", map[string]bool{"100.80.1.7": true, "100.81.0.20": true, "100.82.0.20": true, "100.80.1.8": false})
	book.Expect(second)
	book.Give(these("100.82.0.20"))
	check("about to move again", map[string]bool{"100.80.1.7": true, "100.81.0.20": true, "100.82.0.20": true, "100.82.0.21": false, "100.80.1.8": false})
	book.Guard(second)
	check("moved again", map[string]bool{"100.82.0.20": true, "100.81.0.20": false, "100.83.0.1": false})
	book.Guard(second)
	check("told once more", map[string]bool{"100.82.0.20": true, "100.81.0.20": false})
	book.Guard(remap.Map{})
	check("direct again", map[string]bool{"100.80.1.7": true, "100.82.0.21": true})
	book.Guard(second)
	check("and virtual", map[string]bool{"100.82.0.20": false})
}

// nth is an address of 100.80.0.0/15.
func nth(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(80 + n>>16), byte(n >> 8), byte(n)})
}

// TestAgainstModel has a book and a slow one by lists see the same: addresses given
// one by one and in crowds, packets, a flow that never rests.
func TestAgainstModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var book Book
	book.Guard(elsewhere(t))
	var model []netip.Addr // by use, the last used last; of one turn in the order of addresses
	turns := map[netip.Addr]int{}
	turn := 0
	use := func(a netip.Addr) { turns[a] = turn }
	sort := func() {
		slices.SortFunc(model, func(x, y netip.Addr) int {
			if turns[x] != turns[y] {
				return turns[x] - turns[y]
			}
			return x.Compare(y)
		})
	}
	busy := nth(1 << 16)
	book.Open(busy)
	turn++
	model = append(model, busy)
	use(busy)
	for range 3000 {
		crowd := 1
		if random.IntN(20) == 0 {
			crowd = random.IntN(Max / 4)
		}
		var fresh []netip.Addr
		turn++
		var all []netip.Addr
		for range crowd {
			a := nth(random.IntN(3 * Max))
			if slices.Contains(all, a) {
				continue
			}
			all = append(all, a)
			if _, known := turns[a]; known {
				use(a)
			} else {
				fresh = append(fresh, a)
			}
		}
		book.Give(slices.Values(all))
		if len(fresh) > 0 && len(model)+len(fresh) > Max {
			sort()
			for room := max(len(fresh), Max/8); len(model)+room > Max; model = model[1:] {
				delete(turns, model[0])
			}
		}
		for _, a := range fresh {
			model = append(model, a)
			use(a)
		}
		to := []netip.Addr{busy}
		for range 8 {
			to = append(to, nth(random.IntN(3*Max)))
		}
		for _, a := range to {
			_, known := turns[a]
			passed, _, _ := sends(t, &book, segment(a.String(), syn))
			if passes := len(passed) == 1; passes != known {
				t.Fatalf("turn %d: to %s %v, want %v", turn, a, passes, known)
			}
			if known {
				use(a)
			}
		}
		if n := len(book.view.Load().known); n != len(model) || n > Max {
			t.Fatalf("turn %d: %d addresses, want %d, and at most %d", turn, n, len(model), Max)
		}
	}
	if _, known := turns[busy]; !known {
		t.Error("an address in use was forgotten")
	}
}

// TestForgottenUnderAFlow: a connection goes on when its address was forgotten, and a
// new one has to ask for the name again.
func TestForgottenUnderAFlow(t *testing.T) {
	var book Book
	book.Guard(elsewhere(t))
	book.Give(these("100.81.0.20"))
	for n := range 2 * Max {
		book.Open(nth(n))
	}
	if passed, _, _ := sends(t, &book, segment("100.81.0.20", ack)); len(passed) != 1 {
		t.Error("an open connection broke")
	}
	if passed, back, _ := sends(t, &book, segment("100.81.0.20", syn)); len(passed) != 0 || len(back) != 1 {
		t.Error("the address was not forgotten")
	}
	crowd := func(yield func(netip.Addr) bool) {
		for n := range 3 * Max {
			if !yield(nth(n)) {
				return
			}
		}
	}
	book.Give(crowd)
	if n := len(book.view.Load().known); n != Max {
		t.Errorf("%d addresses", n)
	}
}

// TestAllAtOnce: DNS answers, packets and moves come at the same time, and an address
// passes as soon as it was given.
func TestAllAtOnce(t *testing.T) {
	var book Book
	m := elsewhere(t)
	book.Guard(m)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for n := range 500 {
				a := nth(g<<12 | n)
				book.Give(slices.Values([]netip.Addr{a}))
				if passed, _, _ := sends(t, &book, segment(a.String(), syn)); len(passed) != 1 {
					t.Errorf("%s was given and does not pass", a)
					return
				}
				if n%50 == 0 {
					book.Expect(elsewhere(t, "10.0.0.0/24", "100.99.0.0/24"))
					book.Guard(m)
					book.Refused()
				}
			}
		})
	}
	wg.Wait()
}

// TestPacketsCostNothing but a look.
func TestPacketsCostNothing(t *testing.T) {
	var book Book
	book.Guard(elsewhere(t))
	book.Give(these("100.81.0.20", "fdaa:bb:cc::7"))
	for _, b := range [][]byte{segment("100.81.0.20", syn), datagram("fdaa:bb:cc::7"), segment("100.80.1.7", ack), datagram("198.18.0.1")} {
		if n := testing.AllocsPerRun(100, func() {
			if v := book.guards().judge(destination(b), b, book.turn.Load()); v != pass && v != known {
				t.Error("does not pass")
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, known := range []int{-1, 1, Max} {
		b.Run(fmt.Sprintf("known=%d", known), func(b *testing.B) {
			var book Book
			if known > 0 {
				book.Guard(elsewhere(b))
				for n := range known {
					book.Open(nth(n))
				}
			}
			h := &host{}
			for range 64 {
				h.batch = append(h.batch, slices.Concat(segment("100.80.0.0", ack), make([]byte, 1380)))
			}
			d := New(h, &book, nil)
			bufs, sizes := make([][]byte, 64), make([]int, 64)
			for i := range bufs {
				bufs[i] = make([]byte, 2048)
			}
			for b.Loop() {
				_, _ = d.Read(bufs, sizes, 16)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/packet")
		})
	}
}
