package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func get(t *testing.T, url string) (string, *http.Response) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), r
}

func TestPodSaysWhoItIs(t *testing.T) {
	s := httptest.NewServer(NewShop("web-7", "shop", "node1"))
	defer s.Close()
	body, r := get(t, s.URL)
	if body != "hello from web-7\n" || r.Header.Get("X-Pod") != "web-7" {
		t.Errorf("%q, X-Pod %q", body, r.Header.Get("X-Pod"))
	}
	if body, _ := get(t, s.URL+"/whoami"); !strings.Contains(body, `"node":"node1"`) {
		t.Errorf("whoami: %s", body)
	}
	if _, r := get(t, s.URL+"/status?code=503"); r.StatusCode != 503 {
		t.Errorf("status %d", r.StatusCode)
	}
	if _, r := get(t, s.URL+"/nothing"); r.StatusCode != 404 {
		t.Errorf("status %d", r.StatusCode)
	}
}

// TestLargeBodiesCheckOut sends a blob down and up and compares what both ends
// say of it.
func TestLargeBodiesCheckOut(t *testing.T) {
	s := httptest.NewServer(NewShop("web", "", ""))
	defer s.Close()
	body, r := get(t, s.URL+"/blob?size=1000003")
	if len(body) != 1000003 || r.ContentLength != 1000003 {
		t.Errorf("%d bytes, length %d", len(body), r.ContentLength)
	}
	sum, _ := get(t, s.URL+"/blob/sha256?size=1000003")
	if got := fmt.Sprintf("%x\n", sha256.Sum256([]byte(body))); got != sum {
		t.Errorf("got %s, server says %s", got, sum)
	}
	up, err := http.Post(s.URL+"/sink", "", Blob(1000003))
	if err != nil {
		t.Fatal(err)
	}
	defer up.Body.Close()
	if got, _ := io.ReadAll(up.Body); string(got) != "1000003 "+sum {
		t.Errorf("sink: %s", got)
	}
}

// TestBlobDoesNotDependOnReads reads one byte at a time and all at once.
func TestBlobDoesNotDependOnReads(t *testing.T) {
	all, err := io.ReadAll(Blob(1001))
	if err != nil {
		t.Fatal(err)
	}
	slow, err := io.ReadAll(iotest.OneByteReader(Blob(1001)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(all, slow) {
		t.Error("the blob depends on how it is read")
	}
	if bytes.Equal(all[:8], all[8:16]) {
		t.Error("the blob repeats")
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "12": 12, "10k": 10_000, "5M": 5_000_000, "2G": 2_000_000_000} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "k", "-1", "1.5M", "101G", "9999999999999999999G", "5MM"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

// TestEchoOfHalfClosedConnection sends, closes its half, and still gets all.
func TestEchoOfHalfClosedConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- echoTCP(t.Context(), ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.Copy(conn, Blob(100_000)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := io.ReadAll(Blob(100_000))
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back", len(got))
	}
	_ = ln.Close()
	if err := <-done; err == nil {
		t.Error("a listener that broke is no error")
	}
}

func TestEchoOfDatagrams(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() { _ = echoUDP(t.Context(), pc) }()
	conn, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 100)
	for _, want := range []string{"ahoy", ""} {
		if _, err := conn.Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}
}
