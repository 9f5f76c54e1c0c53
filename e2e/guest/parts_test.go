package guest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"

	"podnet.dev/client"
	"podnet.dev/client/helper/remote"
	"podnet.dev/client/localapi"
	"podnet.dev/e2e/town"
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

// parts are the story, in order. Each says what it measured, and how long took what is
// promised to take no longer than limit.
var parts = []struct {
	name    string
	play    func(*scene) (string, error)
	promise string
	limit   time.Duration
}{
	{name: "boots", play: boots},
	{name: "connects by podnet-helper", play: connects},
	{name: "reaches a Service by its name", play: reaches},
	{name: "is reached by the gateway, which begins the handshake", play: isReached},
	{name: "goes on by the API server when UDP is cut, and back", play: moves},
	{name: "leaves nothing when the laptop is killed", play: laptopKilled},
	{name: "leaves nothing when podnet-helper is killed", play: helperKilled},
	{name: "connects as root, by a stream only", play: asRoot},
	{name: "leaves nothing when root's podnet is killed", play: rootKilled},
	{name: "ends as it should", play: ends},
	{name: "connects with the clock a day back", play: atAnotherTime(-24 * time.Hour), promise: "[32] the clock a day back: connect to the first answer", limit: 10 * time.Second},
	{name: "connects with the clock ten years ahead", play: atAnotherTime(10 * 365 * 24 * time.Hour), promise: "[32] the clock ten years ahead: connect to the first answer", limit: 10 * time.Second},
	{name: "a plain device uses what podnet export wrote", play: plain},
}

// scene is the guest, as it is between two parts.
type scene struct {
	*away
	helper *exec.Cmd
	laptop *laptopProcess
	took   time.Duration // what is promised, in this part
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

// atAnotherTime is a session while the machine's clock is wrong.
func atAnotherTime(by time.Duration) func(*scene) (string, error) {
	return func(s *scene) (text string, err error) {
		if err := turnClock(by); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, turnClock(-by)) }()
		begun := time.Now() // its reading of the clock that nobody turns is what counts
		if err := s.connect(0, client.PathAuto); err != nil {
			return "", err
		}
		if _, err = reaches(s); err != nil {
			return "", err
		}
		s.took = time.Since(begun)
		return time.Now().UTC().Format(time.RFC3339), s.laptop.leave()
	}
}

// turnClock sets the machine's clock forward, or back.
func turnClock(by time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return err
	}
	to := unix.NsecToTimeval(now.Nano() + int64(by))
	return unix.Settimeofday(&to)
}
