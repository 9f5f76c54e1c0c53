package main

import (
	"html"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPages follows every link of the documentation, and looks at every picture.
func TestPages(t *testing.T) {
	all, err := options{root: "../.."}.pages(filepath.Join(t.TempDir(), "html"))
	if err != nil {
		t.Fatal(err)
	}
	text, ids := map[string]string{}, map[string]map[string]bool{}
	id := regexp.MustCompile(`\bid="([^"]+)"`)
	for name, file := range all {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text[name], ids[name] = string(raw), map[string]bool{}
		for _, m := range id.FindAllStringSubmatch(string(raw), -1) {
			ids[name][m[1]] = true
		}
	}
	for _, name := range []string{"index.html", "cli.html", "security.html", "adr/0010-as-is-whom-we-send-as.html", "images/tray-connected.png"} {
		if all[name] == "" {
			t.Errorf("no %s", name)
		}
	}
	links := 0
	reference := regexp.MustCompile(`\b(?:href|src|srcset)="([^"]*)"`)
	for name, page := range text {
		if path.Ext(name) != ".html" {
			continue
		}
		for _, m := range reference.FindAllStringSubmatch(page, -1) {
			u, err := url.Parse(html.UnescapeString(m[1]))
			if err != nil || u.Path == "" && u.Fragment == "" {
				t.Errorf("%s: %q: %v", name, m[1], err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			links++
			to := name
			if u.Path != "" {
				to = path.Join(path.Dir(name), u.Path)
			}
			if _, ok := all[to]; !ok {
				t.Errorf("%s leads to %s, which is not there", name, m[1])
			} else if u.Fragment != "" && !ids[to][u.Fragment] {
				t.Errorf("%s leads to %s, which has no such place", name, m[1])
			}
		}
	}
	if links < 200 {
		t.Errorf("only %d links", links)
	}
	cli := text["cli.html"]
	if !strings.Contains(cli, "<title>The command line</title>") || !strings.Contains(cli, "<table>") || strings.Contains(cli, "](") {
		t.Errorf("the page of the command line begins\n%.2000s", cli)
	}
}
