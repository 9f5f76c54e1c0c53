package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/helper"
	"podnet.dev/client/kernel/fakekernel"
	"podnet.dev/client/localapi"
	"podnet.dev/client/userspace"
	"podnet.dev/e2e/town"
)

// A session whose WireGuard is the kernel's is told the same stories. The kernel is
// played; that Linux' does what it does is shown in e2e/guest.

// kernelHost is a host with WireGuard in its kernel.
type kernelHost struct {
	*userspace.Host
	*fakekernel.Kernel
}

func newKernelHost(h *userspace.Host) kernelHost { return kernelHost{h, fakekernel.New(h.TUN, h.Log)} }

func (h kernelHost) Close() error { return errors.Join(h.Kernel.Close(), h.Host.Close()) }

func kernelTown(t *testing.T, pods ...string) *place {
	w := newTown(t, pods...)
	w.device = localapi.DeviceKernel
	return w
}

// TestKernelsDevice: paths change below the kernel's device as they do below ours,
// and a flow lives through it.
func TestKernelsDevice(t *testing.T) {
	t.Parallel()
	l := kernelTown(t, "podnet-gateway-0").connect(client.PathAuto)
	l.within(20*time.Second, "by udp", func() bool { return l.status().Path.Kind == "udp" })
	if c := l.status(); c.Tunnel.Device != localapi.DeviceKernel || c.Tunnel.LastHandshake == "" {
		t.Errorf("the tunnel is %+v", c.Tunnel)
	}
	flow, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	l.wire.Block(true)
	if err := echo(flow, 5*time.Second); err != nil {
		t.Errorf("the flow did not survive the cut: %v", err)
	}
	if p := l.status().Path; p.Kind != "apiserver" {
		t.Errorf("path %+v", p)
	}
	l.wire.Block(false)
	l.within(20*time.Second, "by udp again", func() bool { return l.status().Path.Kind == "udp" })
	if err := echo(flow, 5*time.Second); err != nil {
		t.Errorf("the flow did not survive the return: %v", err)
	}
	l.within(3*time.Second, "counted", func() bool { c := l.status(); return c.Tunnel.Rx > 0 && c.Tunnel.Tx > 0 })
}

// TestKernelsDeviceBringsNothingIn: what would enter the host's own network, or would
// have to be held back, is refused, and the session goes on.
func TestKernelsDeviceBringsNothingIn(t *testing.T) {
	t.Parallel()
	l := kernelTown(t, "podnet-gateway-0").connect(client.PathAuto)
	for what, try := range map[string]func(context.Context) error{
		"steer": func(ctx context.Context) error {
			return l.session.Steer(ctx, localapi.SteerRequest{Target: "deploy/web", Port: "http", Local: "127.0.0.1:1"}, func(localapi.SteerEvent) {})
		},
		"expose": func(ctx context.Context) error {
			return l.session.Expose(ctx, localapi.ExposeRequest{Name: "api", Namespace: "shop"}, func(localapi.ExposeEvent) {})
		},
		"as": func(ctx context.Context) error {
			return l.session.As(ctx, localapi.AsRequest{Target: "deploy/web"}, func(localapi.SteerEvent) {})
		},
	} {
		var refused *localapi.Error
		if err := try(t.Context()); !errors.As(err, &refused) || refused.Code != localapi.CodeConflict || refused.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if rules, err := l.session.Steered(t.Context(), false, ""); err != nil || len(rules) > 0 {
		t.Errorf("the session's rules: %v, %v", rules, err)
	}
	if !l.works() {
		t.Error("the session does not work any more")
	}
}

// TestKernelsDeviceGetsAnotherKey, when the lease was over, and another gateway's
// when its own dies.
func TestKernelsDeviceGetsAnotherKey(t *testing.T) {
	t.Parallel()
	w := kernelTown(t, "podnet-gateway-0", "podnet-gateway-1")
	l := w.connect(client.PathAuto)
	before := l.status()
	w.Set(town.Trouble{Away: true})
	l.within(5*time.Second, "frozen", func() bool { return l.status().Lease.Frozen })
	w.Forget()
	w.Set(town.Trouble{})
	l.within(10*time.Second, "enrolled again", func() bool { return l.status().Reenrolled == 1 })
	l.within(5*time.Second, "at work again", l.works)
	if now := l.status(); now.Peer == before.Peer {
		t.Errorf("before %+v, now %+v", before, now)
	}
	pod := l.status().Gateway.Pod
	w.Kill(pod)
	l.within(10*time.Second, "at work by the other", l.works)
	if now := l.status().Gateway.Pod; now == pod {
		t.Errorf("still with %s", now)
	}
}

// TestKernelsDeviceIsTakenAway by somebody: the session ends and says so.
func TestKernelsDeviceIsTakenAway(t *testing.T) {
	t.Parallel()
	w := kernelTown(t, "podnet-gateway-0")
	l := w.begin(client.PathAuto)
	l.within(10*time.Second, "ready", func() bool { return l.told(localapi.EventReady, "") })
	if err := l.kernel.Kernel.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-l.ended:
		if err == nil {
			t.Error("the session ended without a word")
		}
		l.ended <- nil // for leave
	case <-time.After(10 * time.Second):
		t.Error("the session goes on without a device")
	}
}

// TestKernelsDeviceIsNotHere: a host without one says so, and nothing is left.
func TestKernelsDeviceIsNotHere(t *testing.T) {
	t.Parallel()
	w := newTown(t, "podnet-gateway-0")
	host := userspace.New(userspace.Config{Log: w.log})
	s := client.New(client.Config{
		Request:     localapi.ConnectRequest{Namespaces: w.opens, GatewayNamespace: "podnet-system", LeaseSeconds: 60, Device: localapi.DeviceKernel},
		Events:      func(localapi.Event) {},
		OpenCluster: func(localapi.Kube) (client.Cluster, error) { return w.Cluster(), nil },
		OpenHelper:  func(context.Context, func(string)) (helper.Session, error) { return host, nil },
		Dial:        host.Dial,
		Log:         w.log,
	})
	var said *localapi.Error
	if err := s.Run(t.Context()); !errors.As(err, &said) || said.Code != localapi.CodeConflict || said.Hint == "" {
		t.Errorf("it ends with %v", err)
	}
	if left := w.Peers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
