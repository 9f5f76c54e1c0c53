package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/gateway/standalone"
	"podnet.dev/internal/key"
	"podnet.dev/internal/probe"
)

// answerLines answers each line of the input by what f returns, until the input ends.
func answerLines(f func(line string) (any, error)) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		v, err := f(lines.Text())
		if err != nil {
			return err
		}
		if v == nil {
			continue
		}
		if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
			return err
		}
	}
	return lines.Err()
}

// scaleGateway is podnet-gateway --wireguard-config in this program, which can be
// asked what it has. With PODNET_BENCH_HEAP it writes a profile of its heap each time,
// to that file with its process's number behind.
func scaleGateway(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		err := answerLines(func(string) (any, error) {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return alive{Heap: m.HeapAlloc, Stacks: m.StackInuse, Goroutines: runtime.NumGoroutine()}, writeHeap(os.Getenv("PODNET_BENCH_HEAP"))
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return standalone.Run(ctx, standalone.Options{ConfigFile: file})
}

func writeHeap(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(fmt.Sprintf("%s.%d", file, os.Getpid()))
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

// holdFlows keeps as many connections open as it is told, each used once.
func holdFlows(addr string) error {
	var held []net.Conn
	return answerLines(func(line string) (any, error) {
		n, err := strconv.Atoi(line)
		if err != nil {
			return nil, err
		}
		var mu sync.Mutex
		var g errgroup.Group
		g.SetLimit(64)
		for range n - len(held) {
			g.Go(func() error {
				c, err := used(addr)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				held = append(held, c)
				return nil
			})
		}
		return struct{}{}, g.Wait()
	})
}

// used is a connection over which something has been asked.
func used(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return nil, err
	}
	b := make([]byte, message)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(c, b)
	return c, errors.Join(err, c.SetDeadline(time.Time{}))
}

// crowd is many laptops in one process that have nothing to say: WireGuard's
// handshakes and keepalives, and a ping a second, which is how podnet's client keeps
// its way. The first line tells the gateway's key and theirs; the second, that they
// are to come.
func crowd(at string) error {
	gateway, err := netip.ParseAddrPort(at)
	if err != nil {
		return err
	}
	var keys []string
	return answerLines(func(line string) (any, error) {
		if keys == nil {
			keys = strings.Split(line, ",")
			return nil, nil
		}
		to, err := key.ParsePublic(keys[0])
		if err != nil {
			return nil, err
		}
		var devices []*device.Device
		for _, text := range keys[1:] {
			d, err := member(text, to, gateway)
			if err != nil {
				return nil, err
			}
			devices = append(devices, d)
			time.Sleep(10 * time.Millisecond) // or the gateway would take it for a flood
		}
		for _, d := range devices {
			if err := joined(d); err != nil {
				return nil, err
			}
		}
		return struct{}{}, nil
	})
}

// member is one of the crowd.
func member(text string, to key.Public, gateway netip.AddrPort) (*device.Device, error) {
	private, err := key.ParsePrivate(text)
	if err != nil {
		return nil, err
	}
	probes, err := probe.NewKey(private, to)
	if err != nil {
		return nil, err
	}
	s := &socket{}
	d := device.NewDevice(newMute(), s, device.NewLogger(device.LogLevelSilent, ""))
	conf := fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=%s\nallowed_ip=10.96.0.0/24\npersistent_keepalive_interval=25\n", private.Hex(), to.Hex(), gateway)
	if err := errors.Join(d.IpcSet(conf), d.Up()); err != nil {
		return nil, err
	}
	go s.ping(probes, gateway)
	return d, nil
}

// joined waits for a handshake.
func joined(d *device.Device) error {
	for range 300 {
		text, err := d.IpcGet()
		if err != nil {
			return err
		}
		if strings.Contains(text, "last_handshake_time_sec=") && !strings.Contains(text, "last_handshake_time_sec=0\n") {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("a peer has no handshake")
}

// mute is a TUN from which nothing comes.
type mute struct {
	events chan tun.Event
	once   sync.Once
	done   chan struct{}
}

func newMute() *mute { return &mute{events: make(chan tun.Event), done: make(chan struct{})} }

func (m *mute) Read([][]byte, []int, int) (int, error) { <-m.done; return 0, os.ErrClosed }
func (m *mute) Write(b [][]byte, _ int) (int, error)   { return len(b), nil }
func (m *mute) File() *os.File                         { return nil }
func (m *mute) MTU() (int, error)                      { return mtu, nil }
func (m *mute) Name() (string, error)                  { return "mute", nil }
func (m *mute) Events() <-chan tun.Event               { return m.events }
func (m *mute) BatchSize() int                         { return 1 }
func (m *mute) Close() error {
	m.once.Do(func() { close(m.done); close(m.events) })
	return nil
}

// socket is a Bind that needs little: one socket, a datagram at a time.
type socket struct{ c *net.UDPConn }

func (s *socket) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, 0, err
	}
	s.c = c
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, from, err := c.ReadFromUDPAddrPort(bufs[0])
		if err != nil {
			return 0, net.ErrClosed
		}
		sizes[0], eps[0] = n, &conn.StdNetEndpoint{AddrPort: from}
		return 1, nil
	}
	return []conn.ReceiveFunc{receive}, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

func (s *socket) Close() error {
	if s.c == nil {
		return nil
	}
	return s.c.Close()
}

func (s *socket) Send(bufs [][]byte, ep conn.Endpoint) error {
	for _, b := range bufs {
		if _, err := s.c.WriteToUDPAddrPort(b, ep.(*conn.StdNetEndpoint).AddrPort); err != nil {
			return err
		}
	}
	return nil
}

// ping asks the gateway once a second, each fifth time with a whole datagram, and
// does not care for what it says.
func (s *socket) ping(k probe.Key, gateway netip.AddrPort) {
	for i := uint64(0); ; i++ {
		size := probe.HeaderSize
		if i%5 == 0 {
			size = probe.MaxSize
		}
		if _, err := s.c.WriteToUDPAddrPort(k.Append(nil, probe.Message{Kind: probe.Ping, TxID: i, Size: size}), gateway); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

func (s *socket) SetMark(uint32) error { return nil }
func (s *socket) BatchSize() int       { return 1 }

func (s *socket) ParseEndpoint(text string) (conn.Endpoint, error) {
	return (&conn.StdNetBind{}).ParseEndpoint(text)
}
