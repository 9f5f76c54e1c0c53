package caller

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// Terminal is an Env.Ask for whoever sits at a terminal; nil where in or out is
// none.
func Terminal(in, out *os.File) func(ctx context.Context, question string) bool {
	if !isTerminal(in) || !isTerminal(out) {
		return nil
	}
	return func(ctx context.Context, question string) bool { return answered(ctx, in, out, question) }
}

// answered puts a question. Anything but yes is no, and so is the end of ctx; what
// is typed after that is lost.
func answered(ctx context.Context, in io.Reader, out io.Writer, question string) bool {
	fmt.Fprintf(out, "%s [y/N] ", question)
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(in).ReadString('\n') // its end is a no
		line <- text
	}()
	select {
	case text := <-line:
		text = strings.ToLower(strings.TrimSpace(text))
		return text == "y" || text == "yes"
	case <-ctx.Done():
		return false
	}
}
