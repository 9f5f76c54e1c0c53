package caller

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
)

func TestAnswered(t *testing.T) {
	for text, want := range map[string]bool{"y\n": true, " YES \n": true, "y": true, "n\n": false, "\n": false, "": false, "yet\n": false} {
		var out strings.Builder
		if got := answered(t.Context(), strings.NewReader(text), &out, "really?"); got != want || out.String() != "really? [y/N] " {
			t.Errorf("%q: %v after %q", text, got, out.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in, typed := io.Pipe()
	if answered(ctx, in, io.Discard, "really?") {
		t.Error("an interrupt is a yes")
	}
	typed.Close()
	if Terminal(os.Stdin, os.NewFile(^uintptr(0), "none")) != nil {
		t.Error("asks where there is no terminal")
	}
}
