package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"podnet.dev/internal/key"
)

// The systems measured: which gateway, behind which laptop.
const (
	raw          = "veth"         // the kernel's forwarding and no tunnel
	upstream     = "wireguard-go" // wireguard-go at both ends
	yardNetstack = "netstack"     // wireguard-go with its own tun/netstack for a gateway, wireguard-go on the laptop
	plain        = "plain client" // podnet-gateway, wireguard-go on the laptop
	podnet       = "podnet"       // podnet-gateway, podnet's tunnel on the laptop
	before       = "before"       // the same with another podnet-gateway
)

const (
	wgPort = 51820

	podIP = "10.96.0.2"
	mtu   = 1420

	// What the pod serves.
	echoAddr, udpAddr, iperfAddr = podIP + ":7000", podIP + ":7001", podIP + ":5201"
)

var (
	laptopTunnel  = netip.MustParseAddr("10.99.0.2")
	gatewayTunnel = netip.MustParseAddr("10.99.0.1")
)

// world is the three namespaces and what runs in them.
type world struct {
	laptop, gateway, pod string // names of namespaces
	dir                  string
	gw                   *exec.Cmd
	all                  []*exec.Cmd
}

// build makes the namespaces and starts the system under test in them.
func build(ctx context.Context, o options, mode, system string) (*world, error) {
	w, err := namespaces(ctx, mode)
	if err != nil {
		return nil, err
	}
	if err := w.startAll(ctx, o, system); err != nil {
		w.destroy()
		return nil, err
	}
	return w, nil
}

// namespaces makes the three, joined.
func namespaces(ctx context.Context, mode string) (w *world, err error) {
	id := fmt.Sprintf("pb%d", os.Getpid())
	w = &world{laptop: id + "-laptop", gateway: id + "-gateway", pod: id + "-pod"}
	defer func() {
		if err != nil {
			w.destroy()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "podnet-bench-"); err != nil {
		return w, err
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return w, err
	}
	for _, ns := range []string{w.laptop, w.gateway, w.pod} {
		if err := script("ip netns add "+ns, "ip -n "+ns+" link set lo up"); err != nil {
			return w, err
		}
	}
	err = script(
		"ip link add "+id+"a netns "+w.gateway+" type veth peer name "+id+"b netns "+w.pod,
		"ip -n "+w.gateway+" link set "+id+"a name pod0",
		"ip -n "+w.pod+" link set "+id+"b name eth0",
		"ip -n "+w.gateway+" addr add 10.96.0.1/24 dev pod0",
		"ip -n "+w.pod+" addr add "+podIP+"/24 dev eth0",
		"ip link add "+id+"c netns "+w.laptop+" type veth peer name "+id+"d netns "+w.gateway,
		"ip -n "+w.laptop+" link set "+id+"c name eth0",
		"ip -n "+w.gateway+" link set "+id+"d name eth0",
		"ip -n "+w.laptop+" addr add 192.168.77.2/24 dev eth0",
		"ip -n "+w.gateway+" addr add 192.168.77.1/24 dev eth0",
		"ip -n "+w.gateway+" link set pod0 up", "ip -n "+w.pod+" link set eth0 up",
		"ip -n "+w.laptop+" link set eth0 up", "ip -n "+w.gateway+" link set eth0 up",
	)
	if err != nil {
		return w, err
	}
	if mode == "seg" {
		for _, ns := range []string{w.laptop, w.gateway} {
			if out, err := w.inside(ctx, ns, "worker", "feature", "eth0", "tx-udp-segmentation", "off").CombinedOutput(); err != nil {
				return w, fmt.Errorf("turn segmentation off: %w: %s", err, out)
			}
		}
	}
	return w, nil
}

func (w *world) startAll(ctx context.Context, o options, system string) error {
	lk, err := key.NewPrivate()
	if err != nil {
		return err
	}
	gk, err := key.NewPrivate()
	if err != nil {
		return err
	}
	if _, err := w.start(exec.Command("ip", "netns", "exec", w.pod, "iperf3", "-s"), ""); err != nil {
		return err
	}
	if _, err := w.start(w.inside(ctx, w.pod, "worker", "serve", echoAddr), ""); err != nil {
		return err
	}
	if system == raw {
		err := script("ip netns exec "+w.gateway+" sysctl -qw net.ipv4.ip_forward=1", "ip -n "+w.pod+" route add 192.168.77.0/24 via 10.96.0.1",
			"ip -n "+w.laptop+" route add 10.96.0.0/24 via 192.168.77.1")
		if err != nil {
			return err
		}
		return w.ready(ctx)
	}
	if err := w.startGateway(ctx, o, system, gk, lk.Public()); err != nil {
		return err
	}
	worker, conf := "tun", fmt.Sprintf("private_key=%s\nlisten_port=51821\npublic_key=%s\nendpoint=192.168.77.1:%d\nallowed_ip=10.96.0.0/24\n", lk.Hex(), gk.Public().Hex(), wgPort)
	if system == podnet || system == before {
		worker = "podnet-tun"
		conf = fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = 51821\n[Peer]\nPublicKey = %s\nEndpoint = 192.168.77.1:%d\nAllowedIPs = 10.96.0.0/24\n", base64Key(lk), gk.Public(), wgPort)
	}
	if _, err := w.start(w.inside(ctx, w.laptop, "worker", worker), conf); err != nil {
		return err
	}
	if err := w.tunUp(w.laptop, laptopTunnel, "10.96.0.0/24"); err != nil {
		return err
	}
	return w.ready(ctx)
}

// startGateway starts the system's gateway, which knows one laptop.
func (w *world) startGateway(ctx context.Context, o options, system string, private key.Private, laptop key.Public) (err error) {
	conf := fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nallowed_ip=%s/32\n", private.Hex(), wgPort, laptop.Hex(), laptopTunnel)
	switch system {
	case upstream:
		if w.gw, err = w.start(w.inside(ctx, w.gateway, "worker", "tun"), conf); err != nil {
			return err
		}
		if err := w.tunUp(w.gateway, gatewayTunnel, laptopTunnel.String()+"/32"); err != nil {
			return err
		}
		return script("ip netns exec "+w.gateway+" sysctl -qw net.ipv4.ip_forward=1", "ip -n "+w.pod+" route add "+laptopTunnel.String()+" via 10.96.0.1")
	case yardNetstack:
		self, err := os.Executable()
		if err != nil {
			return err
		}
		w.gw, err = w.start(exec.CommandContext(ctx, "ip", append(w.unprivileged(), self, "worker", "netstack")...), conf)
		return err
	}
	file := filepath.Join(w.dir, "gateway.conf")
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\nAddress = %s/32\n[Peer]\nPublicKey = %s\nAllowedIPs = %s/32\n",
		base64Key(private), wgPort, gatewayTunnel, laptop, laptopTunnel)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { // uid 65534 reads it; the key lives a minute
		return err
	}
	binary := o.gateway
	if system == before {
		binary = o.before
	}
	w.gw, err = w.start(exec.Command("ip", append(w.unprivileged(), binary, "--wireguard-config", file, "--log-level", "warn")...), "")
	return err
}

// unprivileged are arguments of ip for a program in the gateway's namespace that may
// do as little as in a pod.
func (w *world) unprivileged() []string {
	return []string{"netns", "exec", w.gateway, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		"--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"}
}

// tunUp waits for the worker's TUN and gives it an address and a route.
func (w *world) tunUp(ns string, addr netip.Addr, route string) error {
	var err error
	for range 50 {
		if err = script("ip -n " + ns + " link set wg0 mtu " + fmt.Sprint(mtu) + " up"); err == nil {
			return script("ip -n "+ns+" addr add "+addr.String()+"/32 dev wg0", "ip -n "+ns+" route add "+route+" dev wg0")
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// ready waits until the laptop reaches the pod.
func (w *world) ready(ctx context.Context) error {
	var err error
	for range 20 {
		if err = w.client(ctx, &rrResult{}, "rr", echoAddr, "100ms"); err == nil {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return fmt.Errorf("the laptop does not reach the pod: %w", err)
}

// inside is this program again, in a namespace.
func (w *world) inside(ctx context.Context, ns string, args ...string) *exec.Cmd {
	self, _ := os.Executable()
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, self}, args...)...)
}

// start runs cmd in the background, fed with input.
func (w *world) start(cmd *exec.Cmd, input string) (*exec.Cmd, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stderr = &out
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.all = append(w.all, cmd)
	return cmd, nil
}

// destroy ends the processes and removes the namespaces.
func (w *world) destroy() {
	for _, c := range w.all {
		syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
	}
	for _, c := range w.all {
		timer := time.AfterFunc(2*time.Second, func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
		c.Wait()
		timer.Stop()
	}
	for _, ns := range []string{w.laptop, w.gateway, w.pod} {
		exec.Command("ip", "netns", "del", ns).Run()
	}
	if w.dir != "" {
		os.RemoveAll(w.dir)
	}
}

func script(lines ...string) error {
	for _, l := range lines {
		f := strings.Fields(l)
		if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", l, err, bytes.TrimSpace(out))
		}
	}
	return nil
}
