//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// A scanned pod is one that a foreign pod knocks at, and what may answer there.
type scanned struct {
	what     string
	at       []netip.Addr
	tcp, udp []uint16
}

// TestScan has a pod of another namespace, which may do nothing, knock at every TCP port
// of the gateway's pod and of a steered one, and send a datagram to a fair share of their
// UDP ports. What answers is what the documents say: the gateway's port for probes and
// metrics, and what the steered pod's own program serves.
func TestScan(t *testing.T) {
	market(t, 1)
	alice.connect(t, "-n", "market")
	alice.serveLocally(t, 3000, "laptop")
	alice.steer(t, "deploy/stall", "8080:3000", "--header", "x-user: alice")
	foreign := podsNetwork(t, kubectl("get", "pods", "-n", "pay", "-l", "app=till", "-o", "jsonpath={.items[0].status.podIP}").must(t))

	began := time.Now()
	var all errgroup.Group
	for _, pod := range []scanned{
		{"the gateway's pod", podIPs(t, "podnet-system", "statefulset.kubernetes.io/pod-name=podnet-gateway-0"), []uint16{8081}, nil},
		{"a steered pod", podIPs(t, "market", "app=stall"), []uint16{5432, 8080}, []uint16{5353}},
	} {
		for _, at := range pod.at {
			all.Go(func() error {
				open, silent, err := foreign.knock(t.Context(), at)
				if err != nil {
					return err
				}
				report(t, fmt.Sprintf("[17] TCP ports of %s that answer a foreign pod, of %d", pod.what, lastPort), fmt.Sprintf("%v; %v say nothing, all others refuse", open, silent))
				if !slices.Equal(open, pod.tcp) {
					t.Errorf("%s at %s: TCP ports %v answer, want %v", pod.what, at, open, pod.tcp)
				}
				ports := share(pod.udp)
				speak, err := foreign.call(t.Context(), at, ports)
				if err != nil {
					return err
				}
				report(t, fmt.Sprintf("[17] UDP ports of %s that answer a foreign pod, of %d", pod.what, len(ports)), fmt.Sprint(speak))
				if !slices.Equal(speak, pod.udp) {
					t.Errorf("%s at %s: UDP ports %v answer, want %v", pod.what, at, speak, pod.udp)
				}
				return nil
			})
		}
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	report(t, "both scans", time.Since(began).Round(time.Second))
	want(t, node1.cmd("curl", "-sS", "--max-time", "5", "-H", "x-user: alice", "http://"+stalls(t)[0]+":8080/").must(t), "hello from laptop") // it was steered all the time
}

// podIPs are the addresses of the pod with a label.
func podIPs(t testing.TB, namespace, label string) (all []netip.Addr) {
	t.Helper()
	for _, ip := range strings.Fields(kubectl("get", "pods", "-n", namespace, "-l", label, "-o", "jsonpath={.items[0].status.podIPs[*].ip}").must(t)) {
		all = append(all, netip.MustParseAddr(ip))
	}
	return all
}

const (
	lastPort = 65535
	// knocksPerSecond bounds what an address is asked: connection tracking remembers a
	// refused connection for 10 s.
	knocksPerSecond = 2500
	// knockers is how many wait for an answer at once, knockTime for how long: a SYN
	// that is lost is repeated after a second.
	knockers  = 16
	knockTime = 1500 * time.Millisecond
	// fewSilent is how many ports may say nothing. Where more do, something drops what is
	// sent there, and a scan tells nothing of what is behind it.
	fewSilent = 64
)

// knock connects to every TCP port of an address, from the network: which were open, and
// which did not even refuse.
func (n network) knock(ctx context.Context, at netip.Addr) (open, silent []uint16, err error) {
	ports := make(chan uint16)
	var mu sync.Mutex
	all, ctx := errgroup.WithContext(ctx)
	for range knockers {
		all.Go(func() error {
			return n.do(func() error {
				d := net.Dialer{Timeout: knockTime}
				for port := range ports {
					c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(at, port).String())
					var late net.Error
					switch {
					case err == nil:
						_ = c.Close()
						mu.Lock()
						open = append(open, port)
						mu.Unlock()
					case errors.Is(err, syscall.ECONNREFUSED):
					case errors.As(err, &late) && late.Timeout():
						mu.Lock()
						silent = append(silent, port)
						tooMany := len(silent) > fewSilent
						mu.Unlock()
						if tooMany {
							return fmt.Errorf("%s: more than %d ports say nothing", at, fewSilent)
						}
					default:
						return err
					}
				}
				return nil
			})
		})
	}
	paced(ctx, lastPort, func(i int) {
		select {
		case ports <- uint16(i + 1):
		case <-ctx.Done():
		}
	})
	close(ports)
	err = all.Wait()
	slices.Sort(open)
	slices.Sort(silent)
	return open, silent, err
}

// call sends a datagram to each of the ports, from the network, and tells which of them
// say anything.
func (n network) call(ctx context.Context, at netip.Addr, ports []uint16) (speak []uint16, err error) {
	var c net.PacketConn
	if err := n.do(func() (err error) { c, err = net.ListenPacket("udp", ":0"); return err }); err != nil {
		return nil, err
	}
	defer c.Close()
	over := make(chan struct{})
	heard := map[uint16]bool{}
	go func() {
		defer close(over)
		for b := make([]byte, 2048); ; {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if who := from.(*net.UDPAddr).AddrPort(); who.Addr().Unmap() == at {
				heard[who.Port()] = true
			}
		}
	}()
	var failed error
	paced(ctx, len(ports), func(i int) {
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, ports[i]))
		if _, err := c.WriteTo([]byte("is anybody there?"), to); err != nil && failed == nil {
			failed = err
		}
	})
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	<-over
	for port := range heard {
		speak = append(speak, port)
	}
	slices.Sort(speak)
	return speak, failed
}

// share is a fair share of all UDP ports: the privileged ones, every eighth of the
// others, those of podnet and those that are known to answer.
func share(known []uint16) []uint16 {
	ports := append([]uint16{51820, 51821, 8081}, known...)
	for p := 1; p <= lastPort; p++ {
		if p < 1024 || p%8 == 0 {
			ports = append(ports, uint16(p))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// paced calls do for 0 to n-1, at most knocksPerSecond times a second.
func paced(ctx context.Context, n int, do func(int)) {
	const every = 20 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := range n {
		if i%(knocksPerSecond/int(time.Second/every)) == 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		do(i)
	}
}
