package http1

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"podnet.dev/internal/steer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachRequestGoesWhereItBelongs(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	w.laptops["ada"] = serveHTTP(t, named("ada"))
	c := w.client()
	for range 3 {
		c.send(get("/a", ""))
		c.want(200, "app GET /a")
		c.send(get("/b", forAda))
		c.want(200, "ada GET /b")
		c.send(post("/c", forAda, "hello"))
		c.want(200, "ada POST /c hello")
		c.send(post("/d", "", "hello"))
		c.want(200, "app POST /d hello")
	}
	if a, l := w.dials("app"), w.dials("ada"); a != 1 || l != 1 {
		t.Errorf("%d connections to the app, %d to the laptop", a, l)
	}
	s := w.until("the stolen one", func(s steer.Seen) bool { return s.Target == "/c" })
	if s.Rule == nil || s.Rule.Owner != "ada" || s.Status != 200 || s.Method != "POST" || s.Host != "cart" || s.Err != nil ||
		s.In != int64(len(post("/c", forAda, "hello"))) || s.Out == 0 {
		t.Errorf("seen %+v", s)
	}
	s = w.until("the passed one", func(s steer.Seen) bool { return s.Target == "/d" })
	if s.Rule != nil || s.Status != 200 || s.In != int64(len(post("/d", "", "hello"))) {
		t.Errorf("seen %+v", s)
	}
}

// TestRulesComeAndGo on a connection that stays open.
func TestRulesComeAndGo(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")))
	w.laptops["ada"] = serveHTTP(t, named("ada"))
	c := w.client()
	for range 3 {
		w.steer()
		c.send(get("/a", forAda))
		c.want(200, "app GET /a")
		w.steer(steal())
		c.send(get("/b", forAda))
		c.want(200, "ada GET /b")
		w.steer(steal()) // the same, compiled anew
		c.send(get("/c", forAda))
		c.want(200, "ada GET /c")
	}
	if a, l := w.dials("app"), w.dials("ada"); a != 1 || l != 1 {
		t.Errorf("%d connections to the app, %d to the laptop", a, l)
	}
}

// A name may come back with another rule, of another owner, while a connection that
// was made for the one before is open: it is not for the new one.
func TestNameComesBack(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")))
	copied := make(chan string, 10)
	for _, name := range []string{"ada", "eve"} {
		w.laptops[name] = serveHTTP(t, func(out http.ResponseWriter, r *http.Request) {
			if r.Header.Get(steer.Mirrored) != "" {
				copied <- name + r.URL.Path
			}
			named(name)(out, r)
		})
	}
	c := w.client()
	for n, owner := range []string{"eve", "ada", "eve"} {
		one, two := steal(), copies()
		one.Owner, one.Since = owner, time.Unix(int64(n), 0)
		two.Owner, two.Since = owner, one.Since
		w.steer(one, two)
		c.send(get("/a", forAda))
		c.want(200, owner+" GET /a")
		if got := <-copied; got != owner+"/a" {
			t.Errorf("the copy for %s is %s", owner, got)
		}
	}
}

func TestPipelineKeepsItsOrder(t *testing.T) {
	slow := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "slow") {
				time.Sleep(50 * time.Millisecond)
			}
			named(name)(w, r)
		}
	}
	w := newTown(t, serveHTTP(t, slow("app")), steal())
	w.laptops["ada"] = serveHTTP(t, slow("ada"))
	c := w.client()
	c.send(get("/1slow", "") + post("/2", "", "x") + get("/3slow", forAda) + post("/4", forAda, "yy") + get("/5", "") + get("/6", ""))
	for _, want := range []string{"app GET /1slow", "app POST /2 x", "ada GET /3slow", "ada POST /4 yy", "app GET /5", "app GET /6"} {
		c.want(200, want)
	}
	c.CloseWrite()
	c.wantEnd()
}

// Whatever the mix, and however it is cut, each request has its own answer.
func TestAnyMix(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	w.laptops["ada"] = serveHTTP(t, named("ada"))
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var sent strings.Builder
		var want []string
		for i := range 1 + rnd.IntN(12) {
			name, fields := "app", ""
			if rnd.IntN(2) == 0 {
				name, fields = "ada", forAda
			}
			path, body := fmt.Sprintf("/%d", i), strings.Repeat("x", rnd.IntN(3)*rnd.IntN(5000))
			switch rnd.IntN(3) {
			case 0:
				sent.WriteString(get(path, fields))
				want = append(want, fmt.Sprintf("%s GET %s", name, path))
				continue
			case 1:
				sent.WriteString(post(path, fields, body))
			default:
				fmt.Fprintf(&sent, "POST %s HTTP/1.1\r\nHost: cart\r\n%sTransfer-Encoding: chunked\r\n\r\n", path, fields)
				if body != "" {
					fmt.Fprintf(&sent, "%X;a=b\r\n%s\r\n", len(body), body)
				}
				sent.WriteString("0\r\nX-Sum: 1\r\n\r\n")
			}
			want = append(want, strings.TrimSpace(fmt.Sprintf("%s POST %s %s", name, path, body)))
		}
		c := w.client()
		var writer sync.WaitGroup
		writer.Go(func() {
			for rest := sent.String(); rest != ""; {
				n := min(len(rest), 1+rnd.IntN(1+rnd.IntN(4000)))
				if _, err := io.WriteString(c, rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			c.CloseWrite()
		})
		for _, want := range want {
			c.want(200, want)
		}
		c.wantEnd()
		writer.Wait()
	}
}

func TestFirstBytesThatWereSniffed(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	here, there := net.Pipe()
	done := make(chan error)
	go func() { done <- Serve(t.Context(), there, []byte(get("/a", "")[:9]), w.port.Load, w, w) }()
	go io.WriteString(here, get("/a", "")[9:])
	r, err := http.ReadResponse(bufio.NewReader(here), nil)
	if err != nil || r.StatusCode != 200 {
		t.Fatal(r, err)
	}
	here.Close()
	<-done
}

func TestContinueAndLargeBodies(t *testing.T) {
	size := 3 << 20
	count := func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}
	w := newTown(t, serveHTTP(t, count), steal())
	w.laptops["ada"] = serveHTTP(t, count)
	tr := &http.Transport{ExpectContinueTimeout: 10 * time.Second}
	defer tr.CloseIdleConnections()
	for _, user := range []string{"ada", "bob", "ada"} {
		for _, chunked := range []bool{false, true} {
			req, _ := http.NewRequest("POST", "http://"+w.addr, io.LimitReader(zeros{}, int64(size)))
			if !chunked {
				req.ContentLength = int64(size)
			}
			req.Header.Set("Expect", "100-continue")
			req.Header.Set("X-User", user)
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(user, chunked, err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != fmt.Sprint(size, error(nil)) {
				t.Errorf("%s, chunked %t: %s", user, chunked, b)
			}
		}
	}
}

// A response may be through before the request is.
func TestEarlyResponse(t *testing.T) {
	early := func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
		}
	}
	w := newTown(t, serveRaw(t, early), steal())
	w.laptops["ada"] = serveRaw(t, early)
	for _, fields := range []string{"", forAda} {
		c := w.client()
		for range 2 {
			c.send(strings.TrimSuffix(post("/", fields, "0123456789"), "56789"))
			c.want(413, "")
			c.send("56789")
		}
	}
}

func TestUpgrade(t *testing.T) {
	echo := func(name string) string {
		return serveRaw(t, func(c *net.TCPConn) {
			r := bufio.NewReader(c)
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"+name)
			io.Copy(c, r)
		})
	}
	w := newTown(t, echo("app"), steal())
	w.laptops["ada"] = echo("ada")
	for name, fields := range map[string]string{"app": "", "ada": forAda} {
		c := w.client()
		c.send(get("/", fields+"Upgrade: echo\r\nConnection: Upgrade\r\n"))
		if r, err := http.ReadResponse(c.r, nil); err != nil || r.StatusCode != 101 {
			t.Fatal(name, r, err)
		}
		c.send(get("/", forAda) + "\x00\n")
		c.CloseWrite()
		got, err := io.ReadAll(c.r)
		if want := name + get("/", forAda) + "\x00\n"; err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		s := w.until("the upgrade", func(s steer.Seen) bool { return s.Status == 101 && (s.Rule != nil) == (fields != "") })
		if s.Err != nil || s.Out < int64(len(got)) {
			t.Errorf("seen %+v", s)
		}
	}
}

// What a client sends behind a request for an upgrade that was not granted is
// HTTP again.
func TestUpgradeThatIsNotGranted(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	w.laptops["ada"] = serveHTTP(t, named("ada"))
	c := w.client()
	const h2c = "Upgrade: h2c\r\nConnection: Upgrade\r\n"
	c.send(get("/1", h2c) + get("/2", forAda+h2c) + get("/3", ""))
	c.want(200, "app GET /1")
	c.want(200, "ada GET /2")
	c.want(200, "app GET /3")
}

func TestEndOfContext(t *testing.T) {
	block := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	w := newTown(t, serveHTTP(t, block), steal())
	w.laptops["ada"] = serveHTTP(t, block)
	idle, app, laptop := w.client(), w.client(), w.client()
	app.send(get("/", ""))
	laptop.send(get("/", forAda))
	for w.dials("app") == 0 || w.dials("ada") == 0 {
		time.Sleep(time.Millisecond)
	}
	w.cancel()
	for _, c := range []*client{idle, app, laptop} {
		if b, _ := io.ReadAll(c.r); len(b) > 0 {
			t.Errorf("%q", b)
		}
	}
}
