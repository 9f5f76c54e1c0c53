package localapi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"podnet.dev/internal/httpjson"
)

// TestDaemonThatEnds hangs up on a call, at different places, as one that is killed does.
func TestDaemonThatEnds(t *testing.T) {
	for name, said := range map[string]string{
		"before it says anything": "",
		"in the headers":          "HTTP/1.1 200 OK\r\n",
		"in the answer":           "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"sessions\":",
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "d.sock")
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					if said != "" {
						_, _ = c.Read(make([]byte, 4096))
					} // else what was sent is lost, which is a reset
					fmt.Fprint(c, said)
					_ = c.Close()
				}
			}()
			_, err = NewClient(socket).Disconnect(t.Context())
			if !errors.Is(err, ErrDaemonEnded) || httpjson.FromError(err).Code != CodeDaemon || httpjson.FromError(err).Hint == "" {
				t.Errorf("got %v, want ErrDaemonEnded", err)
			}
		})
	}
}

// TestAFullInspection: a rule's last connections come over at all that is kept of them.
func TestAFullInspection(t *testing.T) {
	full := bytes.Repeat([]byte{0xff}, 64<<10) // relay.InspectBytes
	var all []Inspection
	for range 20 { // relay.InspectConns
		all = append(all, Inspection{Pod: "web-1", Exchanges: []Exchange{{In: full, Out: full}}})
	}
	socket := filepath.Join(t.TempDir(), "d.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Write(w, http.StatusOK, NewInspections("cart", all))
	})}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	got, err := NewClient(socket).Inspect(t.Context(), "cart")
	if err != nil || len(got.Connections) != len(all) || !bytes.Equal(got.Connections[19].Exchanges[0].Out, full) {
		t.Errorf("%d connections, %v", len(got.Connections), err)
	}
}
