package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// NewShop is the shop's HTTP side.
//
//	GET  /                 one line that names the pod
//	GET  /whoami           the pod, its addresses, the client and the request's headers, as JSON
//	GET  /blob?size=500M   that many bytes, always the same; the trailer Sha256 is their checksum
//	GET  /blob/sha256?size=500M   that checksum alone
//	POST /sink             reads the body; answers its length and checksum
//	POST /echo             sends the body back while it still arrives
//	GET  /slow?for=2s      answers after that time
//	GET  /hold?for=1m      answers at once, then a line each second, for that time
//	GET  /status?code=503  answers with that code
//	GET  /dial?to=HOST:PORT&network=tcp   says whether the pod itself can connect
func NewShop(pod, namespace, node string) http.Handler {
	s := shop{pod, namespace, node}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.front)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /whoami", s.whoami)
	mux.HandleFunc("GET /blob", s.blob)
	mux.HandleFunc("GET /blob/sha256", s.blobSum)
	mux.HandleFunc("POST /sink", s.sink)
	mux.HandleFunc("PUT /sink", s.sink)
	mux.HandleFunc("POST /echo", s.echo)
	mux.HandleFunc("GET /slow", s.slow)
	mux.HandleFunc("GET /hold", s.hold)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /dial", s.dial)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pod", pod)
		mux.ServeHTTP(w, r)
	})
}

type shop struct{ pod, namespace, node string }

func (s shop) front(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "hello from %s\n", s.pod)
}

func (s shop) whoami(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"pod": s.pod, "namespace": s.namespace, "node": s.node,
		"address": fmt.Sprint(local), "client": r.RemoteAddr,
		"method": r.Method, "host": r.Host, "path": r.URL.RequestURI(), "headers": r.Header,
	})
}

func (s shop) blob(w http.ResponseWriter, r *http.Request) {
	size, ok := sizeOf(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Header.Get("TE") != "trailers" { // a length lets plain clients see a cut transfer
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = io.Copy(w, Blob(size))
		return
	}
	w.Header().Set("Trailer", "Sha256")
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), Blob(size)); err == nil {
		w.Header().Set("Sha256", hex.EncodeToString(sum.Sum(nil)))
	}
}

func (s shop) blobSum(w http.ResponseWriter, r *http.Request) {
	size, ok := sizeOf(w, r)
	if !ok {
		return
	}
	sum := sha256.New()
	_, _ = io.Copy(sum, Blob(size))
	fmt.Fprintf(w, "%x\n", sum.Sum(nil))
}

func (s shop) sink(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d %x\n", n, sum.Sum(nil))
}

func (s shop) echo(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex()
	flush := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
			return
		}
		_ = flush.Flush()
	}
}

func (s shop) slow(w http.ResponseWriter, r *http.Request) {
	d, ok := durationOf(w, r)
	if !ok {
		return
	}
	select {
	case <-time.After(d):
		fmt.Fprintf(w, "hello from %s, after %v\n", s.pod, d)
	case <-r.Context().Done():
	}
}

func (s shop) hold(w http.ResponseWriter, r *http.Request) {
	d, ok := durationOf(w, r)
	if !ok {
		return
	}
	end := time.After(d)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		fmt.Fprintf(w, "%s %d\n", s.pod, i)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s shop) status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.FormValue("code"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "code is a number from 200 to 599", http.StatusBadRequest)
		return
	}
	w.WriteHeader(code)
}

func (s shop) dial(w http.ResponseWriter, r *http.Request) {
	network := r.FormValue("network")
	if network == "" {
		network = "tcp"
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	start := time.Now()
	conn, err := d.DialContext(r.Context(), network, r.FormValue("to"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer conn.Close()
	fmt.Fprintf(w, "%s to %s in %v\n", conn.LocalAddr(), conn.RemoteAddr(), time.Since(start).Round(time.Microsecond))
}

func sizeOf(w http.ResponseWriter, r *http.Request) (int64, bool) {
	size, err := ParseSize(r.FormValue("size"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return size, err == nil
}

func durationOf(w http.ResponseWriter, r *http.Request) (time.Duration, bool) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err == nil && (d < 0 || d > time.Hour) {
		err = fmt.Errorf("for=%v is not between 0 and 1h", d)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return d, err == nil
}

// ParseSize reads a number of bytes with an optional decimal unit: 10k, 5M, 1G.
func ParseSize(s string) (int64, error) {
	unit := int64(1)
	digits := s
	for suffix, u := range map[string]int64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = d, u
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 100e9/unit {
		return 0, fmt.Errorf("size %q is not a number of bytes such as 1000, 10k, 5M or 1G (at most 100G)", s)
	}
	return n * unit, nil
}
