package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSignature signs with a new key, and follows docs/install.md in verifying it.
func TestSignature(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen here; the package openssh-client has it")
	}
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	recipe := string(bytes.Join(regexp.MustCompile(`(?m)^    (?:ssh-keygen -Y verify|sha256sum) .*$`).FindAll(text, -1), []byte("\n")))
	if strings.Count(recipe, "\n") != 1 {
		t.Fatalf("docs/install.md verifies by\n%s", recipe)
	}
	keys := t.TempDir()
	newKey := func(name string) (file, public string) {
		t.Helper()
		file = filepath.Join(keys, name)
		if said, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, said)
		}
		raw, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		return file, string(raw)
	}
	key, public := newKey("releaser")
	stranger, _ := newKey("stranger")

	const name = "podnet_1.2.3_linux_amd64.deb"
	for what, c := range map[string]struct {
		key    string
		change string // one byte of this file is another afterwards
		want   string
	}{
		"as it was signed":     {key, "", "OK\n"},
		"another package":      {key, name, "FAILED\n"},
		"other checksums":      {key, sumsName, "Could not verify signature"},
		"another signature":    {key, sumsName + ".sig", "Could not"},
		"somebody else's hand": {stranger, "", "Could not verify signature"},
	} {
		t.Run(what, func(t *testing.T) {
			o := options{out: t.TempDir(), key: c.key}
			write := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(o.out, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(name, "a package\n")
			if err := checksums(o.out); err != nil {
				t.Fatal(err)
			}
			if err := o.sign(t.Context()); err != nil {
				t.Fatal(err)
			}
			write("podnet.signers", "release@podnet.dev "+public)
			if c.change != "" {
				raw, err := os.ReadFile(filepath.Join(o.out, c.change))
				if err != nil {
					t.Fatal(err)
				}
				raw[len(raw)/2] ^= 1
				write(c.change, string(raw))
			}
			cmd := exec.Command("bash", "-e", "-c", recipe)
			cmd.Dir = o.out
			said, err := cmd.CombinedOutput()
			if (err == nil) != (what == "as it was signed") || !strings.Contains(string(said), c.want) {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
	o := options{out: t.TempDir(), key: filepath.Join(keys, "nowhere")}
	if err := checksums(o.out); err != nil {
		t.Fatal(err)
	}
	if err := o.sign(t.Context()); err == nil || !strings.Contains(err.Error(), o.key) {
		t.Errorf("a key that is not there has signed: %v", err)
	}
}

func TestUnsignedReleaseSaysSo(t *testing.T) {
	var said bytes.Buffer
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	o := options{out: t.TempDir()}
	if err := o.sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s is UNSIGNED: PODNET_RELEASE_KEY names no SSH key", o.out); !strings.Contains(said.String(), want) {
		t.Errorf("it says %q", said.String())
	}
}
