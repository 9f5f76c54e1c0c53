package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestForsakenStreamEnds: a laptop that went elsewhere without a word leaves nothing at the
// gateway, whatever those between them keep up.
func TestForsakenStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBind(Options{})
		near, far := net.Pipe()
		defer near.Close()
		ended := make(chan error, 1)
		go func() { ended <- b.serveStream(t.Context(), far) }()
		if _, err := near.Write(preamble[:]); err != nil {
			t.Fatal(err)
		}
		if err := readPreamble(near); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, near) }()
		for range 3 {
			time.Sleep(hushedFor - time.Second)
			if _, err := near.Write(appendFrame(nil, []byte{msgControl, 0, 0, 0})); err != nil {
				t.Fatalf("a stream that is used ended: %v", err)
			}
		}
		began := time.Now()
		err := <-ended
		if took := time.Since(began); took != hushedFor || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it ended after %v with %v", took, err)
		}
	})
}
