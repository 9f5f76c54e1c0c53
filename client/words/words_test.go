package words

import (
	"testing"

	"podnet.dev/internal/steer"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 5<<30 + 1<<29: "5.5 GiB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for n, want := range map[uint64]string{
		1: "refused 1 packet to addresses that no name has led to, the last to 100.80.1.7", 2: "refused 2 packets to addresses that no name has led to, the last to 100.80.1.7",
	} {
		if got := Refused(n, "100.80.1.7"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestMatches(t *testing.T) {
	got := Matches([]steer.Match{
		{Method: "GET", Path: "/cart/*", Headers: []steer.Condition{{Name: "x-user", Value: "alice"}}},
		{GRPC: "shop.Cart/*", Query: []steer.Condition{{Name: "debug", Value: "1"}}},
	})
	if len(got) != 2 || got[0] != "header x-user: alice, method GET, path /cart/*" || got[1] != "query debug=1, grpc shop.Cart/*" {
		t.Errorf("%q", got)
	}
	if got := Matches(nil); len(got) != 1 || got[0] != "all that reaches the port" {
		t.Errorf("%q", got)
	}
}

func TestFirstLine(t *testing.T) {
	const proxied = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	for sent, want := range map[string]string{
		"POST /pay HTTP/1.1\r\nHost: web\r\n\r\n": "POST /pay",
		proxied + "GET /a?b=c HTTP/1.0\n\n":       "GET /a?b=c",
		"HTTP/1.1 404 Not Found\r\n\r\n":          "404 Not Found",
		"HTTP/1.1 200\r\n":                        "200",
		"HTTP/1.1 200 \x1b[2J\r\n":                `200 \x1b[2J`,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":        "",
		"":                                        "", "\x16\x03\x01": "", proxied: "", "rest of a body": "",
	} {
		if got := FirstLine([]byte(sent)); got != want {
			t.Errorf("%q: %q, want %q", sent, got, want)
		}
	}
}
