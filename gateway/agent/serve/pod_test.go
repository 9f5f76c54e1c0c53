package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/testpod"
)

func TestMain(m *testing.M) {
	if testpod.Obey(neighbours) {
		return
	}
	goleak.VerifyTestMain(m)
}

const patience = 10 * time.Second

// pod is a pod with an app at one port, which is steered, and the laptops of those
// who steer it. The tests connect to where the kernel would redirect them.
type pod struct {
	*Server
	t    *testing.T
	port uint16
	set  atomic.Pointer[steer.Set]

	mu      sync.Mutex
	laptops map[string]string // by owner; "silence" never answers
	dialed  map[string]int
	seen    []steer.Seen
}

var errNoLaptop = errors.New("no such laptop")

// newPod steers the port of an app.
func newPod(t *testing.T, app net.Addr, rules ...steer.Rule) *pod {
	t.Helper()
	p := &pod{t: t, laptops: map[string]string{}, dialed: map[string]int{}}
	p.port = netip.MustParseAddrPort(app.String()).Port()
	p.steer(rules...)
	p.Server = New(Config{
		Rules:    func(protocol steer.Protocol, port uint16) *steer.Port { return p.set.Load().Port(protocol, port) },
		Laptop:   p.laptop,
		Observer: func(PortKey) steer.Observer { return p },
		Log:      slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// steer makes these the rules of the app's port, and no others.
func (p *pod) steer(rules ...steer.Rule) {
	p.t.Helper()
	for i := range rules {
		rules[i].Port = p.port
	}
	set, err := steer.Compile(rules)
	if err != nil {
		p.t.Fatal(err)
	}
	p.set.Store(set)
}

// listen has the port listened for, and returns where the kernel redirects to.
func (p *pod) listen(protocol steer.Protocol) string {
	p.t.Helper()
	redirects, err := p.Set([]PortKey{{protocol, p.port}})
	if err != nil || len(redirects) != 1 || redirects[0].From != p.port {
		p.t.Fatalf("%v, %v", redirects, err)
	}
	return fmt.Sprintf("127.0.0.1:%d", redirects[0].To)
}

// laptopAt says where the laptop of an owner is from now on.
func (p *pod) laptopAt(owner, addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.laptops[owner] = addr
}

func (p *pod) laptop(ctx context.Context, r *steer.Rule) (net.Conn, error) {
	p.mu.Lock()
	p.dialed[r.Owner]++
	addr := p.laptops[r.Owner]
	p.mu.Unlock()
	switch addr {
	case "":
		return nil, errNoLaptop
	case "silence":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return new(net.Dialer).DialContext(ctx, string(r.Protocol), addr)
}

func (p *pod) dials(owner string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialed[owner]
}

func (p *pod) Seen(s steer.Seen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, s)
}

// until waits for something that was seen.
func (p *pod) until(what string, ok func(steer.Seen) bool) steer.Seen {
	p.t.Helper()
	var found steer.Seen
	if !eventually(func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range p.seen {
			if ok(s) {
				found = s
				return true
			}
		}
		return false
	}) {
		p.t.Fatalf("%s: not seen: %+v", what, p.seen)
	}
	return found
}

func eventually(holds func() bool) bool {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(2 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// steal takes the whole port, for ada.
func steal() steer.Rule {
	return steer.Rule{Name: "ada-1", Owner: "ada", Protocol: steer.TCP, Mode: steer.Steal}
}

// mirror copies the whole port, for bob.
func mirror() steer.Rule {
	return steer.Rule{Name: "bob-1", Owner: "bob", Protocol: steer.TCP, Mode: steer.Mirror}
}

// requests takes requests with "x-user: ada".
func requests() steer.Rule {
	r := steal()
	r.Matches = []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: "ada"}}}}
	return r
}

// serveTCP gives each connection to f and closes it behind f.
func serveTCP(t testing.TB, f func(*net.TCPConn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(2 * patience))
				f(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return l.Addr()
}

// named answers all that a client says, when it has said it all, behind a name.
// Whoever says nothing gets nothing.
func named(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if b, _ := io.ReadAll(c); len(b) > 0 {
			fmt.Fprintf(c, "%s: %s", name, b)
		}
	}
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(2 * patience))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// tell says something and all of it, and returns what comes.
func tell(t testing.TB, addr, text string) (string, error) {
	t.Helper()
	d := net.Dialer{Deadline: time.Now().Add(2 * patience)}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return "", err // a reset may be that quick
	}
	conn := c.(*net.TCPConn)
	defer conn.Close()
	conn.SetDeadline(d.Deadline)
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	if err := conn.CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}
