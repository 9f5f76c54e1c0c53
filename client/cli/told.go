package cli

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// told is what a command line says of how much it wants to hear, and how it looks.
type told struct {
	progress string
	quiet    bool
	plain    bool // no colour
}

// flags are for every command.
func (t *told) flags(f *pflag.FlagSet) {
	f.StringVar(&t.progress, "progress", progressAuto, "how to tell on stderr what is under way: "+choice(progressModes))
	f.BoolVarP(&t.quiet, "quiet", "q", false, "print what was asked for and what goes wrong, and nothing else")
	f.BoolVar(&t.plain, "no-color", false, "no colours on a terminal; so does the variable NO_COLOR")
}

// check finds what is wrong, and settles what follows from what.
func (t *told) check() error {
	if !slices.Contains(progressModes, t.progress) {
		return usage("progress %q: want %s", t.progress, choice(progressModes))
	}
	if t.quiet {
		t.progress = progressNone
	}
	return nil
}

// notes is where it is said that something was done as asked.
func (env *Env) notes() io.Writer {
	if env.told.quiet {
		return io.Discard
	}
	return env.Err
}

// coloured says whether what goes to w may have colours: https://no-color.org.
func (env *Env) coloured(w io.Writer) bool {
	return !env.told.plain && variableOf(env.Environ, "NO_COLOR") == "" && variableOf(env.Environ, "TERM") != "dumb" && interactive(env, w)
}

// variableOf is the value of a variable, the last of that name.
func variableOf(environ []string, name string) string {
	value := ""
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// paint is w, where the first word of a line has its colour if it says how something
// is.
func (env *Env) paint(w io.Writer) io.Writer {
	if !env.coloured(w) {
		return w
	}
	return &painter{w: w}
}

// The colours of words, as SGR sequences (ECMA-48).
var colours = map[string]string{
	"connected": green, "ok": green,
	"connecting": yellow, "degraded": yellow, "warning": yellow, "warning:": yellow,
	"error": red, "error:": red, "problem": red,
	"hint:": bold, "fix:": bold,
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	normal = "\x1b[0m"
)

// painter paints whole lines.
type painter struct {
	w    io.Writer
	line []byte
}

func (p *painter) Write(b []byte) (int, error) {
	p.line = append(p.line, b...)
	for {
		i := slices.Index(p.line, '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := io.WriteString(p.w, painted(string(p.line[:i+1]))); err != nil {
			return 0, err
		}
		p.line = p.line[i+1:]
	}
}

// painted is a line with its colour.
func painted(line string) string {
	text := strings.TrimLeft(line, " ")
	word := text[:len(text)-len(strings.TrimLeft(text, "abcdefghijklmnopqrstuvwxyz:"))]
	colour := colours[word]
	if colour == "" {
		return line
	}
	return line[:len(line)-len(text)] + colour + word + normal + text[len(word):]
}
