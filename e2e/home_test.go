//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// The networks of the lab's clusters.
var (
	podNetwork4     = netip.MustParsePrefix("10.244.0.0/16")
	serviceNetwork4 = netip.MustParsePrefix("10.96.0.0/16")
)

// TestHomeNetworkIsThePodNetwork has the pods' network at home and that of the Services
// on a docker0, with hosts there at the very addresses of a pod and of a Service. Each
// is reached, and nobody for the other.
func TestHomeNetworkIsThePodNetwork(t *testing.T) {
	calm(t)
	pods := strings.Fields(kubectl("get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}").must(t))
	pod, service := pods[0], clusterIP(t, "shop", "web")
	lab("move", "laptop", podNetwork4.String()).must(t)
	neighbour(t, pod)
	alice.container(t, service)
	athome := func(t *testing.T) {
		t.Helper()
		for addr, name := range map[string]string{
			pod: "the neighbour", "nas.home.example.test": "the neighbour", "nas": "the neighbour", service: "the container",
		} {
			if got := alice.cmd("curl", "-sS", "--max-time", "5", "http://"+addr+":8080").must(t); got != "hello from "+name {
				t.Errorf("at %s there is %q", addr, got)
			}
			alice.cmd("ping", "-c", "1", "-W", "2", addr).must(t)
		}
		alice.cmd("curl", "-sS", "--max-time", "5", "http://www.example.test").must(t)
	}
	eventually(t, 5*time.Second, "the hosts at home", func() error {
		for _, addr := range []string{pod, service} {
			if r := alice.cmd("curl", "-sS", "--max-time", "1", "http://"+addr+":8080").try(t); r.code != 0 {
				return fmt.Errorf("%s: %s", addr, r.stderr)
			}
		}
		return nil
	})
	athome(t)
	before := alice.snapshot(t)

	r := alice.podnet("connect", "--wait", "-n", "shop", "--addresses", "direct").mustFail(t)
	explained(t, r, "eth0", "--addresses virtual")
	alice.podnet("disconnect", "--all").must(t)

	alice.connect(t, "-n", "shop")
	athome(t)
	alice.elsewhere(t, "eth0")
	inCluster(t, pods)
	alice.podnet("disconnect", "--all").must(t)
	eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t)) })
}

// TestCarriedHome connects somewhere else and comes home, where the pods' network is.
func TestCarriedHome(t *testing.T) {
	calm(t)
	alice.connect(t, "-n", "shop")
	if mode := alice.connection(t).Addresses.Mode; mode != "direct" {
		t.Fatalf("addresses are %s before there is a reason", mode)
	}
	lab("move", "laptop", podNetwork4.String()).must(t)
	took := eventually(t, 30*time.Second, "the shop at virtual addresses", func() error {
		if mode := alice.connection(t).Addresses.Mode; mode != "virtual" {
			return fmt.Errorf("they are %s", mode)
		}
		if r := alice.cmd("curl", "-sS", "--max-time", "2", "http://web.shop").try(t); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	report(t, "[29] carried home where the pods' network is: the shop again after", took.Round(100*time.Millisecond))
	alice.elsewhere(t, "eth0")
	alice.cmd("ping", "-c", "1", "-W", "2", podNetwork4.Addr().Next().String()).must(t) // the home's router
}

// TestAnotherVPN comes up while alice is connected, and routes what the Services have and
// more. Both are there from then on, each for its own.
func TestAnotherVPN(t *testing.T) {
	alice.connect(t, "-n", "shop")
	if mode := alice.connection(t).Addresses.Mode; mode != "direct" {
		t.Fatalf("addresses are %s before there is a reason", mode)
	}
	service := clusterIP(t, "shop", "web")
	t.Cleanup(func() { alice.sh("ip link del vpn0; ip netns del office").try(t) })
	alice.sh(fmt.Sprintf(`set -e
		ip netns add office && ip link add vpn0 type veth peer name eth0 netns office
		ip addr add 192.168.77.1/24 dev vpn0 && ip link set vpn0 up
		ip -n office addr add 192.168.77.2/24 dev eth0 && ip -n office link set lo up && ip -n office link set eth0 up && ip -n office addr add %s/32 dev lo
		ip route add 10.96.0.0/12 via 192.168.77.2`, service)).must(t)
	follow(t, "the office", alice.cmd(append([]string{"nsenter", "--net=/run/netns/office"}, playing("web", ":8080", "the office")...)...))
	took := eventually(t, 30*time.Second, "the shop at virtual addresses", func() error {
		if a := alice.connection(t).Addresses; a.Mode != "virtual" {
			return fmt.Errorf("they are %s", a.Mode)
		}
		if r := alice.cmd("curl", "-sS", "--max-time", "2", "http://web.shop").try(t); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	report(t, "another VPN takes the Services' network: the shop again after", took.Round(100*time.Millisecond))
	alice.elsewhere(t, "vpn0")
	eventually(t, 5*time.Second, "the office", func() error {
		if r := alice.cmd("curl", "-sS", "--max-time", "2", "http://"+service+":8080").try(t); strings.TrimSpace(r.stdout) != "hello from the office" {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
}

// elsewhere fails the test unless the cluster is at virtual addresses, none of them in a
// network of the laptop's own, and podnet says that it is for what the laptop has there.
func (m machine) elsewhere(t testing.TB, why string) {
	t.Helper()
	c := m.connection(t)
	if c.Addresses.Mode != "virtual" || !strings.Contains(c.Addresses.Why, why) {
		t.Errorf("addresses are %+v, and should be virtual because of %s", c.Addresses, why)
	}
	for _, route := range c.Routes {
		if p, err := netip.ParsePrefix(route); err != nil || p.Overlaps(podNetwork4) || p.Overlaps(serviceNetwork4) {
			t.Errorf("route %s: %v", route, err)
		}
	}
}

// inCluster has alice use the shop at virtual addresses: TCP, UDP, ping, and names that
// lead there and back.
func inCluster(t *testing.T, pods []string) {
	t.Helper()
	at := func(real string) string {
		addr := alice.podnet("map", real).must(t)
		if back := alice.podnet("map", addr).must(t); addr == real || back != real {
			t.Errorf("%s is at %s, and that is %s", real, addr, back)
		}
		return addr
	}
	dig := func(args ...string) []string {
		lines := strings.Fields(alice.cmd(append([]string{"dig", "+short"}, args...)...).must(t))
		slices.Sort(lines)
		return lines
	}
	want(t, alice.cmd("getent", "ahosts", "web").must(t), at(clusterIP(t, "shop", "web")))
	want(t, alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "hello from web-")
	if got := alice.sh(`echo ahoy | socat -T 3 - UDP:web.shop:5353`).must(t); got != "ahoy" {
		t.Errorf("the UDP echo said %q", got)
	}

	// Each member of a headless Service has an address of its own.
	var members []string
	said := map[string]bool{}
	for _, pod := range pods {
		addr := at(pod)
		members = append(members, addr)
		said[alice.cmd("curl", "-sS", "--max-time", "10", "http://"+addr+":8080").must(t)] = true
		alice.cmd("ping", "-c", "1", "-W", "3", addr).must(t)
		want(t, alice.role("refused", addr+":9").must(t), "connection refused")
		if got := alice.sh(fmt.Sprintf(`echo ahoy | socat -T 3 - UDP:%s:5353`, addr)).must(t); got != "ahoy" {
			t.Errorf("the UDP echo at %s said %q", addr, got)
		}
	}
	slices.Sort(members)
	if got := dig("web-headless.shop.svc.cluster.local"); len(said) != len(pods) || !slices.Equal(got, members) {
		t.Errorf("the members are at %v, want %v; they said %v", got, members, said)
	}

	const name = "db-0.db.shop.svc.cluster.local."
	db := at(podAddress(t, "app=db"))
	if got := dig("_postgres._tcp.db.shop.svc.cluster.local", "SRV"); len(got) != 4 || !slices.Contains(got, name) {
		t.Errorf("SRV: %v", got)
	}
	if got := dig(name); len(got) != 1 || got[0] != db {
		t.Errorf("%s is at %v, want %s", name, got, db)
	}
	if got := dig("-x", db); len(got) != 1 || got[0] != name {
		t.Errorf("%s is %v, want %s", db, got, name)
	}
}

// neighbour is a host in alice's home, which says so at port 8080: her home's router,
// with another two addresses.
func neighbour(t testing.TB, addr string) {
	t.Helper()
	router := machine{name: "laptop-edge"}
	for _, a := range []string{addr, "10.244.0.3"} { // nas.home.example.test
		router.cmd("ip", "addr", "add", a+"/16", "dev", "lan").must(t)
		t.Cleanup(func() { router.cmd("ip", "addr", "del", a+"/16", "dev", "lan").must(t) })
	}
	router.start(t, "web", ":8080", "the neighbour")
}

// container is a container on a docker0 of the machine, which says so at port 8080.
func (m machine) container(t testing.TB, addr string) {
	t.Helper()
	t.Cleanup(func() { m.sh("ip link del docker0; ip netns del box").try(t) })
	m.sh(fmt.Sprintf(`set -e
		ip link add docker0 type bridge && ip addr add %s/%d dev docker0 && ip link set docker0 up
		ip netns add box && ip link add veth-box type veth peer name eth0 netns box && ip link set veth-box master docker0 up
		ip -n box addr add %s/%[2]d dev eth0 && ip -n box link set lo up && ip -n box link set eth0 up`,
		serviceNetwork4.Addr().Next(), serviceNetwork4.Bits(), addr)).must(t)
	follow(t, "the container", m.cmd(append([]string{"nsenter", "--net=/run/netns/box"}, playing("web", ":8080", "the container")...)...))
}
