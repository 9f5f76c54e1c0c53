package cli

import "testing"

func TestParseShare(t *testing.T) {
	for in, want := range map[string]float64{"0": 0, "0.5%": 0.005, "0.005": 0.005, "100%": 1, "2%": 0.02} {
		if got, err := parseShare(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "%", "much", "1%%"} {
		if got, err := parseShare(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "50mbit": 50e6, "1gbit": 1e9, "1.5Mbit": 1.5e6, "64kbit": 64e3, "9600": 9600, "800bit": 800} {
		if got, err := parseRate(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "mbit", "fast", "-1mbit", "1e9gbit", "50mb"} {
		if got, err := parseRate(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestSetVariable(t *testing.T) {
	env := setVariable([]string{"HOMER=x", "HOME=/root"}, "HOME", "/home/alice")
	env = setVariable(env, "NEW", "1")
	if env[0] != "HOMER=x" || env[1] != "HOME=/home/alice" || env[2] != "NEW=1" {
		t.Errorf("%q", env)
	}
}
