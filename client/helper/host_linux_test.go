package helper

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/osdns"
	"podnet.dev/client/router"
	"podnet.dev/internal/testhost"
)

// connectTwo is a daemon with two sessions. It ends the first at the first line
// of standard input, and the second at its end.
func connectTwo(dir string) error {
	if err := os.Setenv("PODNET_TEST_ROLE", "guard"); err != nil {
		return err
	}
	h := NewHost(Options{StateDir: dir, Guard: []string{"/proc/self/exe", dir}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	var ends []func() error
	for i, primary := range []bool{true, false} {
		end, err := connectOne(h, i, primary)
		if err != nil {
			return err
		}
		ends = append(ends, end)
	}
	fmt.Println("two sessions")
	in := bufio.NewReader(os.Stdin)
	for i, end := range ends {
		_, _ = in.ReadString('\n')
		if err := end(); err != nil {
			return err
		}
		fmt.Println("ended", i)
	}
	return nil
}

// connectOne does what session i does to the host, the gateway's addresses and
// port 53 of its own included.
func connectOne(h *Host, i int, primary bool) (end func() error, err error) {
	ctx := context.Background()
	s, err := h.Open(ctx, func(string) {})
	if err != nil {
		return nil, err
	}
	dev, err := s.TUN(1420)
	if err != nil {
		return nil, err
	}
	name, err := dev.Name()
	if err != nil {
		return nil, err
	}
	own := netip.AddrFrom4([4]byte{198, 18, 0, byte(5 + i)})
	shared := []netip.Prefix{netip.MustParsePrefix("198.18.0.1/32"), netip.MustParsePrefix("fd70:6f64:6e65:7400::/64")}
	routes := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(96 + i), 0, 0}), 16)}
	if err := s.SetNetwork(router.Config{Interface: name, Addresses: []netip.Prefix{netip.PrefixFrom(own, 32)}, Routes: routes, Shared: shared}); err != nil {
		return nil, err
	}
	packets, streams, err := s.ListenDNS(ctx, []netip.Addr{own})
	if err != nil {
		return nil, err
	}
	wish := osdns.Config{Link: name, Servers: []netip.Addr{own}, MatchDomains: []string{fmt.Sprintf("c%d.podnet.internal", i)}, Primary: primary}
	if primary {
		wish.SearchDomains = []string{"shop.svc.cluster.local"}
	}
	if err := s.SetDNS(ctx, wish); err != nil {
		return nil, err
	}
	if base, _ := s.DNS(); len(base) != 1 || base[0] != netip.MustParseAddrPort("192.0.2.53:53") {
		return nil, fmt.Errorf("session %d has the base resolvers %v", i, base)
	}
	return func() error {
		if err := s.SetDNS(ctx, osdns.Config{}); err != nil {
			return err
		}
		for _, c := range []interface{ Close() error }{packets[0], streams[0], dev, s, s} {
			if err := c.Close(); err != nil {
				return err
			}
		}
		if err := s.SetDNS(ctx, wish); err == nil {
			return fmt.Errorf("session %d is closed and goes on", i)
		}
		return nil
	}, nil
}

// TestTwoSessionsOfOneHost: the end of one leaves the other's routes and names,
// the end of both, or of the daemon, leaves nothing.
func TestTwoSessionsOfOneHost(t *testing.T) {
	for name, kill := range map[string]bool{"ended": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			h := testhost.New(t)
			before := h.Snapshot()
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			daemon := h.Command(exe, h.State)
			daemon.Env, daemon.Stderr = append(os.Environ(), "PODNET_TEST_ROLE=two"), os.Stderr
			in, err := daemon.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := daemon.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
			lines := bufio.NewScanner(out)
			says := func(want string) {
				t.Helper()
				if !lines.Scan() || lines.Text() != want {
					t.Fatalf("the daemon says %q, want %q", lines.Text(), want)
				}
			}
			has := func(during string, wants ...string) {
				t.Helper()
				for _, want := range wants {
					if !strings.Contains(during, want) {
						t.Errorf("no %q in\n%s", want, during)
					}
				}
			}
			says("two sessions")
			both := h.Snapshot()
			has(both, "10.96.0.0/16 dev podnet0", "10.97.0.0/16 dev podnet1", "198.18.0.1 dev podnet0", "198.18.0.1 dev podnet1", "nameserver 198.18.0.5", "shop.svc.cluster.local")
			if strings.Contains(both, "nameserver 198.18.0.6") {
				t.Errorf("the file has both resolvers, and programs would ask either:\n%s", both)
			}
			if kill {
				if err := daemon.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = daemon.Wait()
				h.Becomes(before, 2*time.Second)
				return
			}
			fmt.Fprintln(in)
			says("ended 0")
			one := h.Snapshot()
			has(one, "10.97.0.0/16 dev podnet1", "198.18.0.1 dev podnet1", "nameserver 198.18.0.6")
			for _, gone := range []string{"podnet0", "198.18.0.5", "search shop"} {
				if strings.Contains(one, gone) {
					t.Errorf("%q is left in\n%s", gone, one)
				}
			}
			_ = in.Close()
			says("ended 1")
			if err := daemon.Wait(); err != nil {
				t.Error(err)
			}
			h.Becomes(before, 0)
		})
	}
}
