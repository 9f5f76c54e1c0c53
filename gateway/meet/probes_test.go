package meet

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/gateway/world"
	"podnet.dev/gateway/world/worldtest"
	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
)

// fakePaths remembers what it was told.
type fakePaths struct {
	answer  []probe.Key
	answers int
	punched [][]netip.AddrPort
}

func (f *fakePaths) Answer(keys []probe.Key)               { f.answer = keys; f.answers++ }
func (f *fakePaths) Punch(_ probe.ID, to []netip.AddrPort) { f.punched = append(f.punched, to) }

func privateKey(t *testing.T) key.Private {
	t.Helper()
	k, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func anywhere(netip.Addr) bool { return true }

// Who is admitted may probe, and both ends have the same key for it.
func TestOnlyTheAdmittedMayProbe(t *testing.T) {
	f := &fakePaths{}
	p := NewProber(privateKey(t), f, slog.New(slog.DiscardHandler))
	alice, bob := privateKey(t), privateKey(t)
	may := func(of ...key.Private) {
		t.Helper()
		if len(f.answer) != len(of) {
			t.Errorf("%d keys are answered, want %d", len(f.answer), len(of))
		}
		for _, k := range of {
			want, err := probe.NewKey(k, p.private.Public())
			if err != nil || !slices.Contains(f.answer, want) {
				t.Errorf("no answer to a laptop's key, %v", err)
			}
		}
	}
	in := func(keys ...key.Public) {
		var all []Invitation
		for _, k := range keys {
			all = append(all, Invitation{Key: k})
		}
		p.Set(all, anywhere)
	}
	in(alice.Public(), bob.Public())
	may(alice, bob)
	in(alice.Public(), bob.Public())
	if f.answers != 1 {
		t.Errorf("told %d times, want once", f.answers)
	}
	in(bob.Public())
	may(bob)
	in(bob.Public(), key.Public{1}) // a point of low order: the secret would be everybody's
	may(bob)
	if n := len(p.IDs()); n != 1 {
		t.Errorf("%d peers are waited for", n)
	}
}

func TestPunchWherePeersSayTheyAre(t *testing.T) {
	f := &fakePaths{}
	p := NewProber(privateKey(t), f, slog.New(slog.DiscardHandler))
	laptop := privateKey(t).Public()
	says := func(candidates ...string) []Invitation { return []Invitation{{laptop, candidates}} }
	home, train := "203.0.113.9:40001", "198.51.100.4:50002"
	for _, step := range []struct {
		what string
		in   []Invitation
		want []string // nil: not told again
	}{
		{"nothing to go by", says(), nil},
		{"it tells where it is", says(home), []string{home}},
		{"nothing new", says(home), nil},
		{"it has moved", says(train, "127.0.0.1:4000"), []string{train}},
		{"it takes that back", says(), []string{}},
		{"it is home again", says(home), []string{home}},
		{"it is cut", nil, []string{}},
		{"it comes back", says(home), []string{home}},
	} {
		f.punched = nil
		p.Set(step.in, func(a netip.Addr) bool { return !a.IsLoopback() })
		var got []string
		for _, to := range f.punched {
			got = []string{}
			for _, at := range to {
				got = append(got, at.String())
			}
		}
		if !slices.Equal(got, step.want) || (got == nil) != (step.want == nil) || len(f.punched) > 1 {
			t.Errorf("%s: pings to %v, want %v", step.what, got, step.want)
		}
	}
}

// A peer cannot make the gateway send to the cluster, to itself, or to what is
// nobody's laptop.
func TestHarmlessCandidates(t *testing.T) {
	w := testWorld()
	w.Set(worldtest.Node("node1", true, "172.16.0.10", "203.0.113.2"))
	w.Set(worldtest.Service("shop", "web", "10.96.1.1"))
	w.Set(worldtest.Slice("default", "kubernetes", "172.16.0.99"))
	w.Set(serviceCIDR("10.96.0.0/16"))
	w.Publish()
	s := w.Snapshot()
	for text, want := range map[string]bool{
		"203.0.113.9:40001":              true,
		"192.168.1.7:51820":              true, // in the laptop's home, or in the office beside the nodes
		"10.1.2.3:1024":                  true,
		"100.64.3.4:51820":               true,
		"[2001:db8::7]:51820":            true,
		"[fd12:3456::7]:51820":           true,
		"[::ffff:192.168.1.8]:51820":     true,
		"192.168.1.7:53":                 false, // what listens there is no laptop
		"192.168.1.7:0":                  false,
		"127.0.0.1:51820":                false,
		"[::1]:51820":                    false,
		"0.0.0.0:51820":                  false,
		"169.254.169.254:51820":          false,
		"[fe80::1%eth0]:51820":           false,
		"224.0.0.251:5353":               false,
		"255.255.255.255:51820":          false,
		"[ff02::1]:51820":                false,
		"198.18.0.7:51820":               false, // a peer's tunnel address
		"[fd70:6f64:6e65:7400::7]:51820": false,
		"10.244.7.7:51820":               false, // a pod's, or one to be
		"10.96.1.1:51820":                false,
		"10.96.200.1:51820":              false,
		"172.16.0.10:51820":              false, // a node
		"203.0.113.2:51820":              false,
		"172.16.0.99:6443":               false, // the API server
		"example.org:51820":              false,
		"nonsense":                       false,
		"":                               false,
	} {
		if got := len(harmless([]string{text}, s.Outside)) == 1; got != want {
			t.Errorf("%q: pinged %v, want %v", text, got, want)
		}
	}
	if n := len(harmless([]string{"192.0.2.1:2000", "192.0.2.1:2000"}, s.Outside)); n != 1 {
		t.Errorf("one place is pinged %d times over", n)
	}
	if n := len(harmless(slices.Repeat([]string{"x"}, 99), s.Outside)); n != 0 {
		t.Errorf("%d places of nonsense", n)
	}
}

func FuzzHarmless(f *testing.F) {
	f.Add("203.0.113.9:40001")
	f.Add("[::ffff:127.0.0.1]:51820")
	f.Add("[fe80::1%eth0]:51820")
	s := testWorld().Snapshot()
	f.Fuzz(func(t *testing.T, text string) {
		for _, at := range harmless([]string{text}, s.Outside) {
			if a := at.Addr(); a != a.Unmap() || a.Zone() != "" || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() || at.Port() < leastPort {
				t.Errorf("%q would be pinged at %s", text, at)
			}
		}
	})
}

func testWorld() *world.World {
	return world.New(world.Config{Namespace: "podnet-system", PodIPs: []netip.Addr{netip.MustParseAddr("10.244.1.5")}, PodCIDRs: []string{"10.244.0.0/16"},
		Tunnel: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16"), key.Prefix6, key.RelayPrefix6}, Log: slog.New(slog.DiscardHandler)})
}

func serviceCIDR(text string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{text}}}
}
