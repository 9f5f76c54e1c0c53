package limits

import (
	"strings"
	"testing"
)

func TestSet(t *testing.T) {
	for _, c := range []struct {
		text string
		want func(*Limits)
		err  string
	}{
		{"user-connections=20k", func(l *Limits) { l.UserConnections = 20000 }, ""},
		{"user-bytes=50Mi", func(l *Limits) { l.UserBytes = 50 << 20 }, ""},
		{"user-rate=0", func(l *Limits) { l.UserRate = 0 }, ""},
		{"peers=10", func(l *Limits) { l.Peers = 10 }, ""},
		{"peers=0", nil, "from 1 to"},
		{"peers=-1", nil, "from 1 to"},
		{"flows=1500m", nil, "whole number"},
		{"flows=9e18", nil, "whole number"},
		{"flows=many", nil, "is no number"},
		{"flows", nil, "NAME=VALUE"},
		{"users=3", nil, "want one of user-connections"},
		{"", nil, "NAME=VALUE"},
	} {
		got, want := Default(), Default()
		err := got.Set(c.text)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want %q in it", c.text, err, c.err)
			}
		case err != nil:
			t.Errorf("%q: %v", c.text, err)
		default:
			c.want(&want)
		}
		if got != want {
			t.Errorf("%q: %+v, want %+v", c.text, got, want)
		}
	}
}

func TestString(t *testing.T) {
	l := Default()
	if s := l.String(); s != "" {
		t.Errorf("the defaults are %q", s)
	}
	for _, text := range []string{"user-rate=7", "flows=9"} {
		if err := l.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.String(); s != "user-rate=7,flows=9" {
		t.Errorf("%q", s)
	}
}
