package town

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
	"podnet.dev/internal/remap"
)

// mapLocked has the Services at what stands for them as well, and names resolve to
// that, for every laptop there is. mu is held.
func (w *Town) mapLocked() error {
	w.answer = Service
	for _, p := range w.peers {
		for _, v := range p.Spec.Virtual {
			pair, err := remap.ParsePair(v.Real, v.Virtual)
			if err != nil {
				return err
			}
			m, err := remap.Parse([]remap.Pair{pair})
			if err != nil {
				return err
			}
			a, ok := m.Virtual(Service)
			if !ok {
				continue
			}
			w.answer = a
			for _, g := range w.gateways {
				if err := g.serve(a); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// answerName knows one address.
func (w *Town) answerName(_ context.Context, r *dnsproxy.Request) *dns.Msg {
	w.mu.Lock()
	a := w.answer
	if w.trouble.Unmapped {
		a = Service
	}
	w.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(r.Msg)
	if q := r.Msg.Question[0]; q.Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: a.AsSlice()}}
	}
	return m
}

func serveShop(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	if r.URL.Path == "/sink" {
		n, _ := io.Copy(sum, r.Body)
		_, _ = fmt.Fprintf(w, "%d %x\n", n, sum.Sum(nil))
		return
	}
	size, _ := strconv.Atoi(r.URL.Query().Get("size"))
	w.Header().Set("Trailer", "Sha256")
	_, _ = io.Copy(io.MultiWriter(w, sum), bytes.NewReader(bytes.Repeat([]byte("blob"), size/4)))
	w.Header().Set("Sha256", hex.EncodeToString(sum.Sum(nil)))
}

func serveEcho(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
}
