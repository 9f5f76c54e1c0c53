package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// addrs reads addresses with ports, separated by spaces.
func addrs(s string) (list []netip.AddrPort) {
	for _, f := range strings.Fields(s) {
		list = append(list, netip.MustParseAddrPort(f))
	}
	return list
}

// told reads "server>mapped" pairs, separated by spaces.
func told(s string) (list []Answer) {
	for _, f := range strings.Fields(s) {
		server, mapped, _ := strings.Cut(f, ">")
		list = append(list, Answer{netip.MustParseAddrPort(server), netip.MustParseAddrPort(mapped)})
	}
	return list
}

func TestLook(t *testing.T) {
	const local = 40000
	for _, c := range []struct {
		name, answers     string
		kind              Kind
		mapped, predicted string
	}{
		{"nobody answered", "", Unknown, "", ""},
		{"one server", "198.51.100.1:3478>203.0.113.7:5000", Unknown, "203.0.113.7:5000", ""},
		{"a home router", "198.51.100.1:3478>203.0.113.7:5000 198.51.100.2:3478>203.0.113.7:5000", Independent, "203.0.113.7:5000", ""},
		{"two ports of one server", "198.51.100.1:3478>203.0.113.7:5000 198.51.100.1:3479>203.0.113.7:5000", Unknown, "203.0.113.7:5000", ""},
		{"but they may show that ports matter", "198.51.100.1:3478>203.0.113.7:5000 198.51.100.1:3479>203.0.113.7:9000",
			Dependent, "203.0.113.7:5000 203.0.113.7:9000", "203.0.113.7:40000"},
		{"symmetric, at random", "198.51.100.1:3478>203.0.113.7:5000 198.51.100.2:3478>203.0.113.7:61234",
			Dependent, "203.0.113.7:5000 203.0.113.7:61234", "203.0.113.7:40000"},
		{"symmetric, in sequence", "198.51.100.1:3478>203.0.113.7:5000 198.51.100.2:3478>203.0.113.7:5001",
			Dependent, "203.0.113.7:5000 203.0.113.7:5001", "203.0.113.7:5002 203.0.113.7:5003 203.0.113.7:5004 203.0.113.7:5005 203.0.113.7:40000"},
		{"downwards, somebody else between", "198.51.100.1:3478>203.0.113.7:5010 198.51.100.2:3478>203.0.113.7:5008 198.51.100.3:3478>203.0.113.7:5004",
			Dependent, "203.0.113.7:5010 203.0.113.7:5008 203.0.113.7:5004", "203.0.113.7:5002 203.0.113.7:5000 203.0.113.7:4998 203.0.113.7:4996 203.0.113.7:40000"},
		{"near each other by chance", "198.51.100.1:3478>203.0.113.7:5010 198.51.100.2:3478>203.0.113.7:5008 198.51.100.3:3478>203.0.113.7:5012",
			Dependent, "203.0.113.7:5010 203.0.113.7:5008 203.0.113.7:5012", "203.0.113.7:40000"},
		{"the sequence ends", "198.51.100.1:3478>203.0.113.7:65533 198.51.100.2:3478>203.0.113.7:65534",
			Dependent, "203.0.113.7:65533 203.0.113.7:65534", "203.0.113.7:65535 203.0.113.7:40000"},
		{"keeps the port for the first", "198.51.100.1:3478>203.0.113.7:40000 198.51.100.2:3478>203.0.113.7:61234",
			Dependent, "203.0.113.7:40000 203.0.113.7:61234", ""},
		{"several outside addresses", "198.51.100.1:3478>203.0.113.7:40000 198.51.100.2:3478>203.0.113.8:40000",
			Dependent, "203.0.113.7:40000 203.0.113.8:40000", ""},
		{"the NAT was bound anew", "198.51.100.1:3478>203.0.113.7:5000 198.51.100.1:3478>203.0.113.7:6000 198.51.100.2:3478>203.0.113.7:6000",
			Independent, "203.0.113.7:6000", ""},
		{"IPv6 without NAT", "[2001:db8::1]:3478>[2001:db8:7::7]:40000 [2001:db8::2]:3478>[2001:db8:7::7]:40000", Independent, "[2001:db8:7::7]:40000", ""},
		{"each family once", "198.51.100.1:3478>203.0.113.7:5000 [2001:db8::1]:3478>[2001:db8:7::7]:40000",
			Unknown, "203.0.113.7:5000 [2001:db8:7::7]:40000", ""},
		{"IPv4 symmetric, IPv6 not", "198.51.100.1:3478>203.0.113.7:5000 198.51.100.2:3478>203.0.113.7:61234 [2001:db8::1]:3478>[2001:db8:7::7]:40000 [2001:db8::2]:3478>[2001:db8:7::7]:40000",
			Dependent, "203.0.113.7:5000 203.0.113.7:61234 [2001:db8:7::7]:40000", "203.0.113.7:40000"},
		{"written as IPv6", "[::ffff:198.51.100.1]:3478>[::ffff:203.0.113.7]:5000 198.51.100.2:3478>203.0.113.7:5000", Independent, "203.0.113.7:5000", ""},
		{"nonsense", "198.51.100.1:3478>127.0.0.1:5000 198.51.100.2:3478>203.0.113.7:0", Unknown, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Look(local, told(c.answers))
			if f.Kind != c.kind {
				t.Errorf("kind %q, want %q", f.Kind, c.kind)
			}
			if got, want := fmt.Sprint(f.Mapped), fmt.Sprint(addrs(c.mapped)); got != want {
				t.Errorf("mapped %s, want %s", got, want)
			}
			if got, want := fmt.Sprint(f.Predicted), fmt.Sprint(addrs(c.predicted)); got != want {
				t.Errorf("predicted %s, want %s", got, want)
			}
		})
	}
}

func TestCandidates(t *testing.T) {
	router := Finding{Kind: Independent, Mapped: addrs("203.0.113.7:5000")}
	symmetric := Finding{Kind: Dependent, Mapped: addrs("203.0.113.7:5000 203.0.113.7:61234"), Predicted: addrs("203.0.113.7:40000")}
	for _, c := range []struct {
		name, own string
		finding   Finding
		observed  string
		limit     int
		want      string
	}{
		{"no STUN", "192.168.1.5:40000 [2001:db8::5]:40000", Finding{}, "", 16, "192.168.1.5:40000 [2001:db8::5]:40000"},
		{"a home router", "192.168.1.5:40000", router, "", 16, "203.0.113.7:5000 192.168.1.5:40000"},
		{"symmetric", "192.168.1.5:40000", symmetric, "203.0.113.7:777", 16,
			"203.0.113.7:777 203.0.113.7:40000 203.0.113.7:5000 203.0.113.7:61234 192.168.1.5:40000"},
		{"each once", "203.0.113.7:5000 192.168.1.5:40000 192.168.1.5:40000", router, "[::ffff:203.0.113.7]:5000", 16, "203.0.113.7:5000 192.168.1.5:40000"},
		{"many", "10.0.0.1:1 10.0.0.2:1 10.0.0.3:1", router, "203.0.113.7:777", 3, "203.0.113.7:5000 203.0.113.7:777 10.0.0.1:1"},
		{"of no use to others", "127.0.0.1:1 [::1]:1 169.254.1.1:1 [fe80::1%eth0]:1 224.0.0.1:1 [ff02::1]:1 0.0.0.0:1 [::]:1 255.255.255.255:1 240.0.0.1:1 0.1.2.3:1 192.168.1.5:0",
			Finding{}, "", 16, ""},
		{"the tunnel's own", "198.18.0.5:1 [fd70:6f64:6e65:7400::1]:1 [fd70:6f64:6e65:7402::1]:1 198.19.0.1:1 [fd70:6f64:6e65:7404::1]:1", Finding{}, "", 16,
			"198.19.0.1:1 [fd70:6f64:6e65:7404::1]:1"},
		{"none wanted", "192.168.1.5:40000", router, "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(Candidates(addrs(c.own), c.finding, addrs(c.observed), c.limit), " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	if got := Candidates([]netip.AddrPort{{}}, Finding{}, nil, 16); got != nil {
		t.Errorf("an address that is none gives %v", got)
	}
}
