//go:build linux || darwin

package serve_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"podnet.dev/client/helper/serve"
	"podnet.dev/internal/peercred"
)

func TestOperators(t *testing.T) {
	parse := func(text string) serve.Operators {
		t.Helper()
		o, err := serve.ParseOperators([]byte("apiVersion: podnet/v1\nkind: Helper\n" + text))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	bob := peercred.Credentials{UID: 4711, Groups: []int{4711, 4712}}
	for text, want := range map[string]bool{
		"": false, "operators: {users: [\"4711\"]}": true, "operators: {users: [\"4712\"]}": false,
		"operators: {groups: [\"4712\"]}": true, "operators: {users: [no-such-user], groups: [no-such-group]}": false,
	} {
		o := parse(text)
		if o.Include(bob) != want || !o.Include(peercred.Credentials{}) {
			t.Errorf("%q: bob %v, want %v", text, !want, want)
		}
		again, err := o.Text()
		if err != nil {
			t.Fatal(err)
		}
		if p, err := serve.ParseOperators(again); err != nil || p.Include(bob) != want {
			t.Errorf("%s: %v", again, err)
		}
	}
	for text, says := range map[string]string{
		"apiVersion: podnet/v1\nkind: Helper\noperator: {}\n": "line 3", "kind: Helper\n": "apiVersion", "operators: [": "line 1", "": "EOF",
		"apiVersion: podnet/v1\nkind: Helper\n---\nkind: Helper\n": "more than one",
	} {
		if _, err := serve.ParseOperators([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOperatorsOfAnybodysFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "helper.yaml")
	if o, err := serve.ReadOperators(path); err != nil || len(o.Operators.Users) > 0 {
		t.Errorf("no file: %+v, %v", o, err)
	}
	if err := os.WriteFile(path, []byte("apiVersion: podnet/v1\nkind: Helper\noperators: {users: [bob]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if o, err := serve.ReadOperators(path); err != nil || len(o.Operators.Users) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if o, err := serve.ReadOperators(path); err == nil || len(o.Operators.Users) > 0 {
		t.Errorf("a file that anybody may write says %+v", o)
	}
}
