package relay

import (
	"context"
	"net"
	"slices"
	"testing"
)

func TestTargets(t *testing.T) {
	for local, want := range map[string][]string{
		"3000":          {"127.0.0.1:3000", "[::1]:3000"},
		"[::1]:3000":    {"[::1]:3000"},
		"app.test:3000": {"app.test:3000"},
	} {
		if got := targets(local); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", local, got, want)
		}
	}
}

func TestLocalErrorIsForPeople(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	dead := closedPort(t)
	for _, c := range []struct {
		ctx         context.Context
		local, want string
	}{
		{t.Context(), dead, "connection refused at 127.0.0.1:" + dead},
		{t.Context(), "localhost:" + dead, "connection refused at localhost:" + dead},
		{ctx, "127.0.0.1:" + dead, "no answer at 127.0.0.1:" + dead},
	} {
		if _, err := dialTCP(c.ctx, c.local); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %q", c.local, err, c.want)
		}
	}
	err := &localError{"app.test:80", &net.OpError{Op: "dial", Err: &net.DNSError{Name: "app.test", IsNotFound: true}}}
	if want := "no such host: app.test"; err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}
