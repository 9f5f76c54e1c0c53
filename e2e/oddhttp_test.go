//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/internal/steer/http1/corpus"
)

// TestOddHTTP has clients and an app say what no two programs understand in the same
// way, and what most do. With an agent between them each hears the very same bytes,
// and the same end, as without; and none of it comes to the laptop.
func TestOddHTTP(t *testing.T) {
	market(t, 1)
	alice.connect(t, "-n", "market")
	ip := stalls(t)[0]
	const port = 7070
	b := &booth{
		app:    podsNetwork(t, ip).listen(t, fmt.Sprintf(":%d", port)),
		client: podsNetwork(t, podAddress(t, "app=web")),
		addr:   fmt.Sprintf("%s:%d", ip, port),
	}
	laptop := openEars(t, laptopNetwork.listen(t, "127.0.0.1:3000"))

	odd, passed := oddRequests(), passedTalk()
	all := slices.Concat(odd, passed)
	plain := b.holdAll(t, all)
	for _, c := range all {
		if o := plain[c.name]; o.stuck != "" || o.atApp != c.said(false) || o.atClient != c.said(true) {
			t.Fatalf("%s, without an agent: %v", c.name, o)
		}
	}
	for _, x := range []struct {
		what, flag, pattern string
		talk                []conversation
	}{
		{"a rule for every request", "--method", "*", odd},
		{"a rule for a header", "--header", "x-user: alice", all},
	} {
		alice.steer(t, "deploy/stall", fmt.Sprintf("%d:3000", port), x.flag, x.pattern)
		b.isSteered(t)
		stolen := laptop.heard.Load()
		start, differ := time.Now(), 0
		got := b.holdAll(t, x.talk)
		took := time.Since(start)
		for _, c := range x.talk {
			if got[c.name] != plain[c.name] {
				if differ++; differ <= 20 {
					t.Errorf("%s, %s:\n   with: %v\nwithout: %v", x.what, c.name, got[c.name], plain[c.name])
				}
			}
		}
		stolen = laptop.heard.Load() - stolen
		if stolen != 0 {
			t.Errorf("%s: the laptop heard something %d times: %s", x.what, stolen, laptop.last.Load())
		}
		b.isSteered(t)
		report(t, "[47, 49] odd HTTP, "+x.what+", beside no agent",
			fmt.Sprintf("%d conversations, %d differ, %d stolen, %.1f s", len(x.talk), differ, stolen, took.Seconds()))
		alice.podnet("steer", "stop", "--all").must(t)
	}
}

// booth is where a client and an app of the test's own meet.
type booth struct {
	app    *net.TCPListener
	client network
	addr   string // of the app, as the client dials it
	mu     sync.Mutex
}

// meet is a connection as its client and its app have it.
func (b *booth) meet() (client, app *net.TCPConn, err error) {
	b.mu.Lock() // whom the app accepts is the one who has just dialled
	defer b.mu.Unlock()
	c, err := b.client.dial(context.Background(), "tcp4", b.addr)
	if err != nil {
		return nil, nil, err
	}
	_ = b.app.SetDeadline(time.Now().Add(5 * time.Second))
	if app, err = b.app.AcceptTCP(); err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	return c.(*net.TCPConn), app, nil
}

// holdAll holds conversations, several at a time, and gives what came of each by its
// name.
func (b *booth) holdAll(t testing.TB, all []conversation) map[string]outcome {
	t.Helper()
	const lanes = 16
	var mu sync.Mutex
	out := map[string]outcome{}
	next := make(chan conversation)
	var wg sync.WaitGroup
	for range lanes {
		wg.Go(func() {
			for c := range next {
				client, app, err := b.meet()
				o := outcome{stuck: fmt.Sprint(err)}
				if err == nil {
					o = c.hold(client, app)
				}
				mu.Lock()
				out[c.name] = o
				mu.Unlock()
			}
		})
	}
	for _, c := range all {
		next <- c
	}
	close(next)
	wg.Wait()
	if len(out) != len(all) {
		t.Fatalf("%d conversations have %d names", len(all), len(out))
	}
	return out
}

// isSteered fails the test unless a request of alice's goes to her laptop.
func (b *booth) isSteered(t testing.TB) {
	t.Helper()
	client, app, err := b.meet()
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(client, forAlice); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(fromLaptop))
	if n, err := io.ReadFull(client, got); err != nil || string(got) != fromLaptop {
		t.Fatalf("%q, %v; want the laptop's answer", got[:n], err)
	}
}

// ears are a program that answers whatever it hears.
type ears struct {
	heard atomic.Int64 // how often
	last  atomic.Value // what, as a string
}

func openEars(t testing.TB, l *net.TCPListener) *ears {
	e := &ears{}
	e.last.Store("")
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				for b := make([]byte, 4096); ; {
					n, err := c.Read(b)
					if n > 0 {
						e.heard.Add(1)
						e.last.Store(fmt.Sprintf("%.200q", b[:n]))
						_, _ = io.WriteString(c, fromLaptop)
					}
					if err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return e
}

const (
	fromLaptop = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nlaptop"
	fine       = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	forAlice   = "GET /behind HTTP/1.1\r\nHost: a\r\nX-User: alice\r\n\r\n"
	forNobody  = "POST /behind HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
)

// bytewise gives the first bytes of a text one by one, and then the rest.
func bytewise(text string) (pieces []string) {
	const most = 300
	for len(text) > 0 && len(pieces) < most {
		pieces, text = append(pieces, text[:1]), text[1:]
	}
	if text != "" {
		pieces = append(pieces, text)
	}
	return pieces
}

// asked has the app answer what a client asks, and either say that this was all.
func asked(name string, pieces ...string) conversation {
	return conversation{name, []turn{fromClient(pieces...).then(fin), fromApp(fine).then(fin)}}
}

// cuts is a request cut at every byte.
func cuts(name, text string) (all []conversation) {
	for i := 1; i < len(text); i++ {
		all = append(all, asked(fmt.Sprintf("%s, cut at %d", name, i), text[:i], text[i:]))
	}
	return all
}

// oddRequests are those that no rule matches, whatever it asks for.
func oddRequests() (all []conversation) {
	for _, c := range corpus.Odd {
		text := c.Text + forAlice
		all = append(all, asked(c.Name, text), asked(c.Name+", in halves", text[:len(text)/2], text[len(text)/2:]), asked(c.Name+", bytewise", bytewise(text)...))
		switch c.Name {
		case "CL and TE", "two lengths", "bare LF", "fold", "NUL", "2.0", "CONNECT":
			all = append(all, cuts(c.Name, text)...)
		}
	}
	for _, c := range corpus.OddBodies { // while they come with their heads
		if text := corpus.ChunkedHead + c.Text + forAlice; len(text) < 1000 {
			all = append(all, asked("body with "+c.Name, text))
		}
	}
	const late = "GET / HTTP/1.1\r\nHo"
	for _, n := range []int{2, 4, len(late)} { // of a method, of a target, of a head
		all = append(all, conversation{fmt.Sprintf("late after %d bytes", n), []turn{
			fromClient(late[:n]), fromApp(), fromClient(late[n:] + "st: a\r\nX-User: alice\r\n\r\n").then(fin), fromApp(fine).then(fin)}})
	}
	for name, text := range map[string]string{
		"nothing":                "",
		"a method":               "GET",
		"half a head":            "GET / HTTP/1.1\r\nX-User: al",
		"TLS":                    "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
		"garbage":                "\x00\x01\x02\xff\xfe",
		"half a preface":         "PRI * HTTP/2.0\r\n\r\nS",
		"another preface":        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"a preface and garbage":  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 100),
		"a preface and a PING":   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
		"half a SETTINGS":        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x01",
		"a SETTINGS not allowed": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x07",
	} {
		all = append(all,
			conversation{name + " and an end", []turn{fromClient(text).then(fin), fromApp(fine).then(fin)}},
			conversation{name + " and a break", []turn{fromClient(text).then(rst)}},
			conversation{name + ", and the app ends", []turn{fromClient(text), fromApp("no").then(fin), fromClient("but").then(fin)}},
		)
		if text != "" { // else it may break before whoever dials has seen that it was there
			all = append(all, conversation{name + ", and the app breaks", []turn{fromClient(text), fromApp("no").then(rst)}})
		}
	}
	return append(all,
		conversation{"0.9, answered", []turn{fromClient("GET /\r\n"), fromApp("<p>old").then(fin), fromClient().then(fin)}},
		conversation{"a server that speaks first", []turn{fromApp("220 mail\r\n"), fromClient("EHLO a\r\n"), fromApp("250 a\r\n"), fromClient(forAlice).then(fin), fromApp().then(fin)}},
		conversation{"a tunnel", []turn{fromClient("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nX-User: alice\r\n\r\n"), fromApp("HTTP/1.1 200 OK\r\n\r\n"),
			fromClient("\x16\x03\x01"), fromApp("\x16\x03\x03"), fromClient(forAlice).then(fin), fromApp(fine).then(fin)}},
	)
}

// passedTalk is what a rule for a header does not match.
func passedTalk() (all []conversation) {
	for _, c := range corpus.Sane {
		text := c.Text + forNobody
		all = append(all, asked("sane "+c.Name, text), asked("sane "+c.Name+", bytewise", bytewise(text)...))
		if c.Name == "chunked" || c.Name == "trailers" {
			all = append(all, cuts("sane "+c.Name, text)...)
		}
	}
	for _, c := range corpus.OddBodies { // behind a head that was passed on before
		all = append(all, asked("late body with "+c.Name, corpus.ChunkedHead+"3\r\nabc", "\r\n"+c.Text+forAlice))
	}
	answers := slices.Concat(corpus.OddAnswers, corpus.DoubtfulResponses)
	for _, c := range corpus.Responses {
		answers = append(answers, c.Text+c.Rest)
	}
	requests := map[string]string{"a GET": corpus.Plain, "two": corpus.Plain + corpus.Plain, "a POST": forNobody, "a HEAD": "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"}
	for i, answer := range answers {
		for what, request := range requests {
			name := fmt.Sprintf("answer %d to %s: %.20q", i, what, answer)
			all = append(all,
				conversation{name, []turn{fromClient(request), fromApp(answer).then(fin), fromClient().then(fin)}},
				conversation{name + ", bytewise", []turn{fromClient(request), fromApp(bytewise(answer)...).then(fin), fromClient().then(fin)}},
				conversation{name + ", and a break", []turn{fromClient(request), fromApp(answer).then(rst)}},
			)
		}
	}
	const (
		upgrade  = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
		granted  = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
		expect   = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
		half     = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
		tooLarge = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
		tooLate  = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"
		begun    = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"
		frame    = "\x81\x85\x00\x00\x00\x00hello"
	)
	bye, end := fromClient().then(fin), fromApp().then(fin)
	return append(all,
		conversation{"kept alive", []turn{fromClient(corpus.Plain), fromApp(fine), fromClient(forNobody), fromApp(fine), fromClient(corpus.Plain).then(fin), fromApp(fine).then(fin)}},
		conversation{"pipelined, answered one by one", []turn{fromClient(corpus.Plain + forNobody + corpus.Plain), fromApp(fine, fine), fromApp(fine).then(fin), bye}},
		conversation{"pipelined, the second one odd", []turn{fromClient(corpus.Plain + corpus.Odd[0].Text + forAlice), fromApp(fine, fine), bye, end}},
		conversation{"100 Continue", []turn{fromClient(expect), fromApp("HTTP/1.1 100 Continue\r\n\r\n"), fromClient("abc"), fromApp(fine), bye, end}},
		conversation{"early hints", []turn{fromClient(corpus.Plain), fromApp("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), fromApp(fine), bye, end}},
		conversation{"not continued", []turn{fromClient(expect), fromApp("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").then(fin), bye}},
		conversation{"answered in the middle", []turn{fromClient(half), fromApp(tooLarge).then(fin), fromClient("defghij").then(fin)}},
		conversation{"half a body and an end", []turn{fromClient(half).then(fin), fromApp(fine).then(fin)}},
		conversation{"half a body and a break", []turn{fromClient(half).then(rst)}},
		conversation{"half a chunk and a break", []turn{fromClient(corpus.ChunkedHead + "a\r\nabc").then(rst)}},
		conversation{"half a response and an end", []turn{fromClient(corpus.Plain), fromApp(begun).then(fin), bye}},
		conversation{"a client that breaks off a response", []turn{fromClient(corpus.Plain), fromApp(begun), fromClient().then(rst)}},
		conversation{"a client that breaks between requests", []turn{fromClient(corpus.Plain), fromApp(fine), fromClient().then(rst)}},
		conversation{"a timeout between requests", []turn{fromClient(corpus.Plain), fromApp(fine), fromApp(tooLate).then(fin), bye}},
		conversation{"upgraded", []turn{fromClient(upgrade), fromApp(granted + frame), fromClient(frame), fromApp(frame), fromClient(forAlice).then(fin), end}},
		conversation{"not upgraded", []turn{fromClient(upgrade), fromApp(fine), fromClient(corpus.Plain), fromApp(fine), bye, end}},
		conversation{"upgraded and broken", []turn{fromClient(upgrade), fromApp(granted), fromClient(frame).then(rst)}},
	)
}
