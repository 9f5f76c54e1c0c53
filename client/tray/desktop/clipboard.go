package desktop

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"podnet.dev/client/localapi"
)

// A clipboard belongs to a running program: these keep what they were given until
// somebody else has something, also when we have ended.
var (
	waylandCopiers = [][]string{{"wl-copy", "--type", "text/plain"}}
	x11Copiers     = [][]string{{"xclip", "-selection", "clipboard"}, {"xsel", "--clipboard", "--input"}}
	windowsCopiers = [][]string{{"clip.exe"}}
)

// copier is the program to hand a text for the clipboard to. have says whether there
// is a program of that name.
func copier(system string, environ []string, have func(string) bool) ([]string, error) {
	var all [][]string
	need := "a graphical session"
	if variable(environ, "DISPLAY") != "" {
		all, need = x11Copiers, "xclip or xsel"
	}
	if variable(environ, "WAYLAND_DISPLAY") != "" { // which has an X server beside it as a rule
		all, need = append(waylandCopiers[:1:1], all...), "wl-copy (package wl-clipboard)"
	}
	if system == "windows" {
		all, need = windowsCopiers, "clip.exe"
	}
	for _, c := range all {
		if have(c[0]) {
			return c, nil
		}
	}
	return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "nothing here can fill the clipboard", Hint: "install " + need}
}

// fill has a program keep text in the clipboard. Its output is nobody's: it goes on in
// the background, and would hold a pipe open.
func fill(ctx context.Context, program []string, text string) error {
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Stdin = strings.NewReader(text)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fill the clipboard by %s: %w", program[0], err)
	}
	return nil
}
