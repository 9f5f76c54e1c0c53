package caller

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"podnet.dev/client/localapi"
)

func TestColours(t *testing.T) {
	for line, want := range map[string]string{
		"connected   kind as alice\n":  green + "connected" + normal + "   kind as alice\n",
		"  problem  routes  no way\n":  "  " + red + "problem" + normal + "  routes  no way\n",
		"error: no such thing\n":       red + "error:" + normal + " no such thing\n",
		"routes      10.96.0.0/16\n":   "routes      10.96.0.0/16\n",
		"connections are many\n":       "connections are many\n",
		"\n":                           "\n",
		"10:00:00.000  GET /  200  ok": "10:00:00.000  GET /  200  ok",
	} {
		if got := painted(line); got != want {
			t.Errorf("%q: %q", line, got)
		}
	}
	var out bytes.Buffer
	p := &painter{w: &out}
	for _, part := range []string{"conn", "ected  x\nrow", "\n"} {
		if _, err := p.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != green+"connected"+normal+"  x\nrow\n" {
		t.Errorf("%q", out.String())
	}
}

// A terminal has colours, unless somebody wants none.
func TestWhoHasColours(t *testing.T) {
	terminal, err := os.Open(os.DevNull) // a device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		environ string
		plain   bool
		want    bool
	}{
		{"TERM=xterm", false, true}, {"NO_COLOR=1", false, false}, {"NO_COLOR=", false, true}, {"TERM=dumb", false, false}, {"CI=true", false, false}, {"TERM=xterm", true, false},
	} {
		env := &Env{Environ: []string{c.environ}, told: told{plain: c.plain}}
		if got := env.Coloured(terminal); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		if env.Coloured(file) || env.Coloured(&bytes.Buffer{}) {
			t.Error("colours in a file")
		}
	}
}

// TestErrorsSteerNoTerminal: much of an error may be a server's.
func TestErrorsSteerNoTerminal(t *testing.T) {
	var out bytes.Buffer
	env := &Env{Err: &out, Spoken: func(s string) string { return s }}
	env.PrintError(&localapi.Error{Message: "it says \x1b[2Jdone", Hint: "see\rhint: sudo"})
	if want := "error: it says \\x1b[2Jdone\nhint: see\\x0dhint: sudo\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
