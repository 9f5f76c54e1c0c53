// Package shoptest is somebody's test that needs their cluster: a lab story runs it by
// podnet exec.
package shoptest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestShopAnswers(t *testing.T) {
	c := http.Client{Timeout: 10 * time.Second}
	r, err := c.Get("http://web.shop")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(b), "hello from web-") {
		t.Fatalf("%q, %v", b, err)
	}
}
