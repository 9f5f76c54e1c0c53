package cli

import (
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"podnet.dev/client/words"
)

// told is what a command line says of how much it wants to hear, and how it looks.
type told struct {
	progress string
	quiet    bool
	plain    bool // no colour
}

// flags are for every command.
func (env *Base) flags(f *pflag.FlagSet) {
	f.StringVar(&env.told.progress, "progress", progressAuto, "how to tell on stderr what is under way: "+words.Choice(progressModes))
	f.BoolVarP(&env.told.quiet, "quiet", "q", false, "print what was asked for and what goes wrong, and nothing else")
	f.BoolVar(&env.told.plain, "no-color", false, "no colours on a terminal; so does the variable NO_COLOR")
}

// check finds what is wrong, and settles what follows from what.
func (env *Base) check() error {
	if !slices.Contains(progressModes, env.told.progress) {
		return usage("progress %q: want %s", env.told.progress, words.Choice(progressModes))
	}
	if env.told.quiet {
		env.told.progress = progressNone
	}
	return nil
}

// progress makes one for a command whose -o is output.
func (env *Base) progress(output string) *progress {
	if output == jsonStream { // they are the answer
		return newProgress(env.Out, progressStream)
	}
	mode := env.told.progress
	if mode == "" || mode == progressAuto {
		switch {
		case env.interactive(env.Err):
			mode = progressLive
		case forPrograms(output):
			mode = progressNone
		default:
			mode = progressPlain
		}
	}
	return newProgress(env.Err, mode)
}

// quiet says that nothing is to be said but what was asked for and what goes wrong.
func (env *Base) quiet() bool { return env.told.quiet }

// notes is where it is said that something was done as asked.
func (env *Base) notes() io.Writer {
	if env.told.quiet {
		return io.Discard
	}
	return env.Err
}

// interactive says that somebody looks at w.
func (env *Base) interactive(w io.Writer) bool { return isTerminal(w) && !inCI(env.Environ) }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// coloured says whether what goes to w may have colours: https://no-color.org.
func (env *Base) coloured(w io.Writer) bool {
	return !env.told.plain && variableOf(env.Environ, "NO_COLOR") == "" && variableOf(env.Environ, "TERM") != "dumb" && env.interactive(w)
}

// paint is w, where the first word of a line has its colour if it says how something
// is.
func (env *Base) paint(w io.Writer) io.Writer {
	if !env.coloured(w) {
		return w
	}
	return colour(w)
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

// colour is w, where it is known that there are to be colours.
func colour(w io.Writer) io.Writer { return &painter{w: w} }

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
