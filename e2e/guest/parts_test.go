package guest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"podnet.dev/client"
	"podnet.dev/client/helper"
	"podnet.dev/client/helper/remote"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/town"
	"podnet.dev/internal/wgconf"
)

const (
	helperFile = "/podnet-helper"
	socketFile = "/run/podnet/helper.sock"
	stateDir   = "/run/podnet-state"
	// user is the laptop's user where he is not root.
	user = 1000
	// killed is how many sessions of the story had no time to delete their Peer; the
	// device without podnet has one, too.
	killed = 2
)

// parts are the story, in order. Each says what it measured.
var parts = []struct {
	name string
	play func(*scene) (string, error)
}{
	{"boots", boots},
	{"connects by podnet-helper", connects},
	{"reaches a Service by its name", reaches},
	{"is reached by the gateway, which begins the handshake", isReached},
	{"goes on by the API server when UDP is cut, and back", moves},
	{"leaves nothing when the laptop is killed", laptopKilled},
	{"leaves nothing when podnet-helper is killed", helperKilled},
	{"connects as root, by a stream only", asRoot},
	{"leaves nothing when root's podnet is killed", rootKilled},
	{"ends as it should", ends},
	{"a plain device uses what podnet export wrote", plain},
}

// scene is the guest, as it is between two parts.
type scene struct {
	*away
	helper *exec.Cmd
	laptop *laptopProcess
}

func (s *scene) end() {
	if s.laptop != nil {
		s.laptop.kill()
	}
	if s.helper != nil {
		_ = s.helper.Process.Kill()
		_ = s.helper.Wait()
	}
}

func boots(*scene) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	var up unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
	return fmt.Sprintf("Linux %s, %d s after its start", unix.ByteSliceToString(u.Release[:]), up.Sec), err
}

// startHelper starts podnet-helper, and waits until it answers.
func (s *scene) startHelper() error {
	if err := os.MkdirAll("/run/podnet", 0o755); err != nil {
		return err
	}
	const config = "/run/helper.yaml"
	if err := os.WriteFile(config, []byte("apiVersion: podnet/v1\nkind: Helper\noperators:\n  users: [\"1000\"]\n"), 0o644); err != nil {
		return err
	}
	s.helper = exec.Command(helperFile, "serve", "-socket", socketFile, "-config", config, "-state", stateDir)
	s.helper.Stdout, s.helper.Stderr = os.Stdout, os.Stdout
	if err := s.helper.Start(); err != nil {
		return err
	}
	return within(5*time.Second, func() error {
		_, _, err := remote.Look(context.Background(), socketFile)
		return err
	})
}

// within tries until it succeeds.
func within(limit time.Duration, try func() error) error {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := try()
		if err == nil || time.Since(begun) > limit {
			return err
		}
	}
}

func connects(s *scene) (string, error) {
	if err := s.startHelper(); err != nil {
		return "", err
	}
	if err := s.connect(user, client.PathAuto); err != nil {
		return "", err
	}
	c, err := s.laptop.status()
	if err != nil {
		return "", err
	}
	if c.Tunnel.Device != localapi.DeviceKernel || c.Path.Kind != "udp" {
		return "", fmt.Errorf("the session has %+v by %+v", c.Tunnel, c.Path)
	}
	return fmt.Sprintf("%s by %s %s, MTU %d", c.Tunnel.Interface, c.Path.Kind, c.Path.Remote, c.Tunnel.MTU), s.isKernels(c.Tunnel.Interface)
}

// isKernels is whether an interface is WireGuard of the kernel's.
func (*scene) isKernels(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil && l.Type() != "wireguard" {
		err = fmt.Errorf("%s is a %s", name, l.Type())
	}
	return err
}

// blob is what goes either way, in bytes: little, for a processor that is emulated.
const blob = 1 << 20

// carried has another program of the machine's take a blob from a Service, by its
// name, and give it one.
func carried() (string, error) {
	before, err := busy()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("/init")
	cmd.Env = append(os.Environ(), role+"=carry")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	after, err := busy()
	return fmt.Sprintf("%s; the machine was busy for %v", bytes.TrimSpace(out), after-before), err
}

// busy is how long the machine's processors have worked (proc_stat(5): user, nice and
// system, irq and softirq, in hundredths of a second).
func busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var n [7]int64
	_, err = fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6])
	return time.Duration(n[0]+n[1]+n[2]+n[5]+n[6]) * 10 * time.Millisecond, err
}

// carry is that program.
func carry(out io.Writer) error {
	down, err := timed(func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/blob?size=%d", town.ShopURL, blob), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, resp.Body)
		if err != nil {
			return err
		}
		if want := resp.Trailer.Get("Sha256"); n != blob || hex.EncodeToString(sum.Sum(nil)) != want {
			return fmt.Errorf("%d bytes came, with another sum than %s", n, want)
		}
		return nil
	})
	if err != nil {
		return err
	}
	up, err := timed(func(ctx context.Context) error {
		sent := bytes.Repeat([]byte("blob"), blob/4)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, town.ShopURL+"/sink", bytes.NewReader(sent))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("%d %x\n", blob, sha256.Sum256(sent)); err == nil && string(said) != want {
			err = fmt.Errorf("the Service has got %s, and not %s", said, want)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%.0f Mbit/s from a Service, %.0f to it", float64(blob)*8/1e6/down.Seconds(), float64(blob)*8/1e6/up.Seconds())
	return err
}

func timed(do func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	begun := time.Now()
	err := do(ctx)
	return time.Since(begun), err
}

func reaches(*scene) (string, error) {
	text, err := carried()
	if err != nil {
		return "", err
	}
	begun := time.Now()
	c, err := net.Dial("tcp", net.JoinHostPort(town.Service.String(), "5432"))
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		return "", err
	}
	return text + fmt.Sprintf("; a connection and an echo in %v", time.Since(begun).Round(100*time.Microsecond)), nil
}

// handshake is when the kernel's device had the last one.
func handshake(name string) (time.Time, error) {
	c, err := wgctrl.New()
	if err != nil {
		return time.Time{}, err
	}
	defer c.Close()
	d, err := c.Device(name)
	if err != nil {
		return time.Time{}, err
	}
	if len(d.Peers) != 1 {
		return time.Time{}, fmt.Errorf("%s has %d peers", name, len(d.Peers))
	}
	return d.Peers[0].LastHandshakeTime, nil
}

func isReached(s *scene) (string, error) {
	c, err := s.laptop.status()
	if err != nil {
		return "", err
	}
	own, err := netip.ParsePrefix(c.Tunnel.Address)
	if err != nil {
		return "", err
	}
	before, err := handshake(c.Tunnel.Interface)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(own.Addr(), 0).String())
	if err != nil {
		return "", err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.post(ctx, "/rekey", nil, nil); err != nil {
		return "", err
	}
	begun := time.Now()
	if err := s.post(ctx, "/dial?to="+l.Addr().String(), nil, nil); err != nil {
		return "", err
	}
	took := time.Since(begun)
	after, err := handshake(c.Tunnel.Interface)
	if err == nil && !after.After(before) {
		err = fmt.Errorf("the last handshake is from %v still", before)
	}
	return fmt.Sprintf("1 MiB there and back in %v, the handshake included", took.Round(time.Millisecond)), err
}

func moves(s *scene) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	flow, err := net.Dial("tcp", net.JoinHostPort(town.Service.String(), "5432"))
	if err != nil {
		return "", err
	}
	defer flow.Close()
	echo := func() (time.Duration, error) {
		begun := time.Now()
		_ = flow.SetDeadline(begun.Add(15 * time.Second))
		_, err := flow.Write([]byte("hello"))
		if err == nil {
			_, err = io.ReadFull(flow, make([]byte, 5))
		}
		return time.Since(begun), err
	}
	if _, err := echo(); err != nil {
		return "", err
	}
	by := func(kind string) error {
		return within(20*time.Second, func() error {
			c, err := s.laptop.status()
			if err == nil && c.Path.Kind != kind {
				err = fmt.Errorf("by %q, want %s: %s", c.Path.Kind, kind, c.Path.Reason)
			}
			return err
		})
	}
	if err := s.post(ctx, "/block?on=true", nil, nil); err != nil {
		return "", err
	}
	cut, err := echo()
	if err == nil {
		err = by("apiserver")
	}
	if err != nil {
		return "", fmt.Errorf("UDP is cut: %w", err)
	}
	if err := s.post(ctx, "/block?on=false", nil, nil); err != nil {
		return "", err
	}
	if err := by("udp"); err != nil {
		return "", err
	}
	back, err := echo()
	return fmt.Sprintf("a flow stood still for %v when UDP was cut; %v after the way back", cut.Round(time.Millisecond), back.Round(100*time.Microsecond)), err
}

// nothing is whether the machine is as it was without a session.
func nothing(limit time.Duration) (string, error) {
	begun := time.Now()
	err := within(limit, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "podnet") {
				return fmt.Errorf("%s is still there", l.Attrs().Name)
			}
		}
		text, err := os.ReadFile("/etc/resolv.conf")
		if err == nil && !strings.Contains(string(text), "10.0.2.3") {
			err = fmt.Errorf("resolv.conf is %q", text)
		}
		return err
	})
	return fmt.Sprintf("gone after %v", time.Since(begun).Round(time.Millisecond)), err
}

func laptopKilled(s *scene) (string, error) {
	s.laptop.kill()
	return nothing(5 * time.Second)
}

func helperKilled(s *scene) (string, error) {
	if err := s.connect(user, client.PathAuto); err != nil {
		return "", err
	}
	if err := s.helper.Process.Kill(); err != nil {
		return "", err
	}
	_ = s.helper.Wait()
	s.helper = nil
	text, err := nothing(5 * time.Second)
	// Its user's podnet finds out by itself.
	ended := make(chan struct{})
	go func() { _ = s.laptop.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		err = errors.Join(err, errors.New("the session goes on without podnet-helper"))
		_ = s.laptop.cmd.Process.Kill()
		<-ended
	}
	s.laptop = nil
	return text, err
}

func asRoot(s *scene) (string, error) {
	if err := s.connect(0, client.PathAPIServer); err != nil {
		return "", err
	}
	c, err := s.laptop.status()
	if err != nil {
		return "", err
	}
	if c.Tunnel.Device != localapi.DeviceKernel || c.Path.Kind != "apiserver" {
		return "", fmt.Errorf("the session has %+v by %+v", c.Tunnel, c.Path)
	}
	text, err := carried()
	return fmt.Sprintf("MTU %d; %s", c.Tunnel.MTU, text), err
}

func rootKilled(s *scene) (string, error) {
	s.laptop.kill()
	return nothing(5 * time.Second)
}

func ends(s *scene) (string, error) {
	if err := s.connect(0, client.PathUDP); err != nil {
		return "", err
	}
	if err := s.laptop.leave(); err != nil {
		return "", err
	}
	return nothing(0)
}

// plain has a device of the administrator's own, as wg-quick makes one.
func plain(s *scene) (string, error) {
	x := client.NewExports(client.ExportsConfig{OpenCluster: func(localapi.Kube) (client.Cluster, error) { return far{s.away}, nil }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	made, err := x.Export(ctx, localapi.ExportRequest{Device: "phone", Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 900})
	if err != nil {
		return "", err
	}
	conf, err := wgconf.Parse(strings.NewReader(made.Config))
	if err != nil {
		return "", err
	}
	link := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "plain0", MTU: conf.MTU}}
	if err := netlink.LinkAdd(link); err != nil {
		return "", err
	}
	c, err := wgctrl.New()
	if err != nil {
		return "", err
	}
	defer c.Close()
	private, err := wgtypes.ParseKey(conf.PrivateKey.Base64())
	if err != nil {
		return "", err
	}
	p := conf.Peers[0]
	at, err := netip.ParseAddrPort(p.Endpoint)
	if err != nil {
		return "", err
	}
	peer := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.PublicKey), Endpoint: net.UDPAddrFromAddrPort(at), PersistentKeepaliveInterval: &p.Keepalive}
	for _, ip := range p.AllowedIPs {
		peer.AllowedIPs = append(peer.AllowedIPs, ipNet(ip))
	}
	err = c.ConfigureDevice(link.Name, wgtypes.Config{PrivateKey: &private, Peers: []wgtypes.PeerConfig{peer}})
	for _, a := range conf.Addresses {
		own := ipNet(a)
		err = errors.Join(err, netlink.AddrAdd(link, &netlink.Addr{IPNet: &own}))
	}
	err = errors.Join(err, netlink.LinkSetUp(link))
	for _, ip := range p.AllowedIPs {
		to := ipNet(ip)
		err = errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &to}))
	}
	if err != nil {
		return "", err
	}
	resolv := ""
	for _, d := range conf.DNS {
		if a, err := netip.ParseAddr(d); err == nil {
			resolv += "nameserver " + a.String() + "\n"
		}
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte(resolv), 0o644); err != nil {
		return "", err
	}
	text, err := carried()
	return text, errors.Join(err, netlink.LinkDel(link))
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// laptopProcess is somebody's podnet, which is asked by lines and answers by lines.
type laptopProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// connect starts a session of somebody's and waits until it is ready.
func (s *scene) connect(uid uint32, path string) error {
	cmd := exec.Command("/init")
	cmd.Env = append(os.Environ(), role+"=laptop", "BY="+path)
	cmd.Stderr = os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.laptop = &laptopProcess{cmd, in, bufio.NewScanner(out)}
	line, err := s.laptop.line()
	if err == nil && line != "ready" {
		err = fmt.Errorf("it says %q", line)
	}
	return err
}

func (p *laptopProcess) line() (string, error) {
	if !p.out.Scan() {
		return "", errors.Join(errors.New("the laptop's podnet has ended"), p.out.Err())
	}
	return p.out.Text(), nil
}

func (p *laptopProcess) status() (c localapi.Connection, err error) {
	if _, err := fmt.Fprintln(p.in, "status"); err != nil {
		return c, err
	}
	line, err := p.line()
	if err == nil {
		err = json.Unmarshal([]byte(line), &c)
	}
	return c, err
}

// kill is kill -9.
func (p *laptopProcess) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// leave disconnects.
func (p *laptopProcess) leave() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

// laptop is a session, as podnet daemon has one.
func laptop(a *away) error {
	host := helper.NewHost(helper.Options{StateDir: stateDir, Guard: []string{helperFile, "guard", "-state", stateDir}, Log: printing(os.Stderr)})
	open := func(ctx context.Context, warn func(string)) (helper.Session, error) {
		return remote.Open(ctx, socketFile, warn)
	}
	if os.Geteuid() == 0 {
		open = host.Open
	}
	ready := make(chan struct{})
	s := client.New(client.Config{
		Request: localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60, Path: os.Getenv("BY"), Device: localapi.DeviceKernel},
		Events: func(e localapi.Event) {
			if e.Type == localapi.EventReady {
				close(ready)
			}
		},
		OpenCluster: func(localapi.Kube) (client.Cluster, error) { return far{a}, nil },
		OpenHelper:  open,
		Log:         printing(os.Stderr),
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-ready:
		fmt.Println("ready")
	case err := <-ended:
		return errors.Join(errors.New("it never was ready"), err)
	}
	go func() {
		defer cancel()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			c, _ := s.Status()
			text, err := json.Marshal(c)
			if err != nil {
				return
			}
			fmt.Println(string(text))
		}
	}()
	return <-ended
}
