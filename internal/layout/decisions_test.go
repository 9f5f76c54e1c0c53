package layout

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDecisions: the index of the decisions has all of them, and whatever names a
// decision by its number, in code or in prose, names one that is there.
func TestDecisions(t *testing.T) {
	root := os.DirFS("../..")
	files, err := fs.Glob(root, "docs/adr/[0-9]*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no decisions: %v", err)
	}
	there := map[string]bool{}
	var want []string
	for _, file := range files {
		name := path.Base(file)
		number := name[:4]
		if there[number] {
			t.Errorf("there are several decisions %s", number)
		}
		there[number] = true
		want = append(want, number+" "+name)
		if text := read(t, root, file); !strings.HasPrefix(text, "# "+number+": ") {
			t.Errorf("%s does not begin with its number", file)
		}
	}
	var listed []string
	for _, row := range regexp.MustCompile(`(?m)^- \[(\d{4})\]\(([^)]+)\): .`).FindAllStringSubmatch(read(t, root, "docs/adr/README.md"), -1) {
		listed = append(listed, row[1]+" "+row[2])
	}
	if !slices.Equal(listed, want) {
		t.Errorf("docs/adr/README.md lists\n%s\nthere are\n%s", strings.Join(listed, "\n"), strings.Join(want, "\n"))
	}

	anywhere := regexp.MustCompile(`(?i)\badr[ /-](\d{4})\b`)
	among := regexp.MustCompile(`\b(00\d\d)\b`) // decisions call each other by the bare number
	found := 0
	err = fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); file != "." && strings.HasPrefix(name, ".") || file == "bin" || file == "dist" || name == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if name := d.Name(); !slices.Contains([]string{".go", ".md", ".yaml", ".sh", ".html", ".js"}, path.Ext(name)) && name != "Makefile" {
			return nil
		}
		how := anywhere
		if path.Dir(file) == "docs/adr" {
			how = among
		}
		for _, m := range how.FindAllStringSubmatch(read(t, root, file), -1) {
			found++
			if !there[m[1]] {
				t.Errorf("%s speaks of decision %s, which is not there", file, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 2*len(files) {
		t.Errorf("decisions are named only %d times: is the test looking at the right files?", found)
	}
}

func read(t *testing.T, root fs.FS, file string) string {
	t.Helper()
	text, err := fs.ReadFile(root, file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
