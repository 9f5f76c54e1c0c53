package caller

import (
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/progress"
	"podnet.dev/client/words"
)

// told is what a command line says of how much it wants to hear, and how it looks.
type told struct {
	progress string
	quiet    bool
	plain    bool // no colour
}

// Flags are for every command.
func (env *Env) Flags(f *pflag.FlagSet) {
	f.StringVar(&env.told.progress, "progress", progress.Auto, "how to tell on stderr what is under way: "+words.Choice(progress.Modes))
	f.BoolVarP(&env.told.quiet, "quiet", "q", false, "print what was asked for and what goes wrong, and nothing else")
	f.BoolVar(&env.told.plain, "no-color", false, "no colours on a terminal; so does the variable NO_COLOR")
}

// Check finds what is wrong, and settles what follows from what.
func (env *Env) Check() error {
	if !slices.Contains(progress.Modes, env.told.progress) {
		return exit.Usagef("progress %q: want %s", env.told.progress, words.Choice(progress.Modes))
	}
	if env.told.quiet {
		env.told.progress = progress.None
	}
	return nil
}

// Progress makes one for a command whose -o is output.
func (env *Env) Progress(output string) *progress.Progress {
	if output == answer.JSONStream { // they are the answer
		return progress.New(env.Out, progress.Stream)
	}
	mode := env.told.progress
	if mode == "" || mode == progress.Auto {
		switch {
		case env.Interactive(env.Err):
			mode = progress.Live
		case answer.ForPrograms(output):
			mode = progress.None
		default:
			mode = progress.Plain
		}
	}
	return progress.New(env.Err, mode)
}

// Quiet says that nothing is to be said but what was asked for and what goes wrong.
func (env *Env) Quiet() bool { return env.told.quiet }

// Notes is where it is said that something was done as asked.
func (env *Env) Notes() io.Writer {
	if env.told.quiet {
		return io.Discard
	}
	return env.Err
}

// Interactive says that somebody looks at w.
func (env *Env) Interactive(w io.Writer) bool { return isTerminal(w) && !flags.InCI(env.Environ) }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Coloured says whether what goes to w may have colours: https://no-color.org.
func (env *Env) Coloured(w io.Writer) bool {
	return !env.told.plain && flags.Variable(env.Environ, "NO_COLOR") == "" && flags.Variable(env.Environ, "TERM") != "dumb" && env.Interactive(w)
}

// Paint is w as words.Shown has it, where the first word of a line has its colour if it
// says how something is.
func (env *Env) Paint(w io.Writer) io.Writer {
	if !env.Coloured(w) {
		return words.Shown(w)
	}
	return words.Shown(Colour(w))
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

// Colour is w, where it is known that there are to be colours.
func Colour(w io.Writer) io.Writer { return &painter{w: w} }

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
