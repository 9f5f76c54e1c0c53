package words

import (
	"fmt"
	"strings"
	"testing"
)

// TestShown: whatever a text says, a terminal does nothing but print it.
func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"plain, größer, 名前\tand a tab\nand a line\n": "plain, größer, 名前\tand a tab\nand a line\n",
		"\x1b[2J\x1b]0;root\x07":                     `\x1b[2J\x1b]0;root\x07`,
		"over\rwritten \x08\x7f":                     `over\x0dwritten \x08\x7f`,
		"\u009b2J and raw \x9b2J":                    `\xc2\x9b2J and raw \x9b2J`,
		"moc.live\u202e":                             `moc.live\xe2\x80\xae`,
	} {
		var b strings.Builder
		if n, err := fmt.Fprint(Shown(&b), text); err != nil || n != len(text) || b.String() != want {
			t.Errorf("%q is shown as %q, want %q (%d, %v)", text, b.String(), want, n, err)
		}
	}
}
