package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnitsAreWhatSystemdReads has systemd itself look at them.
func TestUnitsAreWhatSystemdReads(t *testing.T) {
	self, err := os.Executable() // a program that is there
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var files []string
	for name, text := range Units(self) {
		if strings.Contains(text, Program) || strings.HasSuffix(name, ".service") && !strings.Contains(text, "="+self+" ") {
			t.Errorf("%s names another program:\n%s", name, text)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "podnet-helper") {
			t.Error(line)
		}
	}
	if err != nil && t.Failed() {
		t.Error(err)
	}
}
