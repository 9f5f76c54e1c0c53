package main

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/russross/blackfriday/v2"
)

// pageFrame is what all pages have. Nothing of it is anywhere else.
var pageFrame = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
:root { color-scheme: light dark; --line: #8885; --code: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto 4rem; padding: 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; border-bottom: 1px solid var(--line); padding-bottom: .6rem; }
h1, h2, h3 { line-height: 1.2; margin-top: 2rem; }
code, pre { font: .875rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--code); border-radius: .25rem; }
code { padding: .1rem .25rem; } pre { padding: .75rem; overflow-x: auto; } pre code { background: none; padding: 0; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
img { max-width: 100%; }
</style>
</head>
<body>
<nav>{{range .Nav}}<a href="{{.To}}">{{.Name}}</a> {{end}}</nav>
{{.Body}}</body>
</html>
`))

// pageNames are the Markdown files that become pages, patterns below the sources, and
// pictureNames the pictures in them.
var (
	pageNames    = []string{"README.md", "SECURITY.md", "docs/*.md", "docs/adr/*.md"}
	pictureNames = "docs/images/*.png"
)

// pageName is where a file of the sources is among the pages; empty: it is not.
func pageName(source string) string {
	switch {
	case source == "README.md":
		return "index.html"
	case path.Dir(source) == "docs/images":
		return "images/" + path.Base(source)
	case path.Ext(source) == ".md":
		return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(source, "docs/"), ".md")) + ".html"
	}
	return ""
}

// pages writes the documentation as a browser shows it, without a network, into a new
// folder, and says which files there are, by their names in that folder.
func (o options) pages(dir string) (map[string]string, error) {
	sources := map[string][]byte{}
	for _, pattern := range append(pageNames, pictureNames) {
		found, err := fs.Glob(os.DirFS(o.root), pattern)
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("find %s: %w", pattern, fs.ErrNotExist)
		}
		for _, name := range found {
			if sources[name], err = os.ReadFile(filepath.Join(o.root, filepath.FromSlash(name))); err != nil {
				return nil, err
			}
		}
	}
	all := map[string]string{}
	for source, raw := range sources {
		if path.Ext(source) == ".md" {
			var err error
			if raw, err = page(source, raw, sources); err != nil {
				return nil, fmt.Errorf("%s: %w", source, err)
			}
		}
		name := pageName(source)
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(to, raw, 0o644); err != nil {
			return nil, err
		}
		all[name] = to
	}
	return all, nil
}

// page makes one. Links to others of the sources lead to their pages, and what is no
// page is no link.
func page(source string, markdown []byte, sources map[string][]byte) ([]byte, error) {
	up := strings.Repeat("../", strings.Count(pageName(source), "/"))
	r := blackfriday.NewHTMLRenderer(blackfriday.HTMLRendererParameters{})
	parser := blackfriday.New(blackfriday.WithRenderer(r),
		blackfriday.WithExtensions(blackfriday.NoIntraEmphasis|blackfriday.Tables|blackfriday.FencedCode|blackfriday.SpaceHeadings))
	var body bytes.Buffer
	title := ""
	parser.Parse(markdown).Walk(func(n *blackfriday.Node, entering bool) blackfriday.WalkStatus {
		switch n.Type {
		case blackfriday.Heading:
			if text := plainText(n); entering {
				n.HeadingID = anchor(text)
				title = cmp.Or(title, text)
			}
		case blackfriday.Link, blackfriday.Image:
			if !entering {
				break
			}
			to, ok := leadsTo(source, string(n.Destination), sources)
			if n.Destination = []byte(to); !ok {
				n.Type = blackfriday.Emph
			} else if !strings.Contains(to, "://") && !strings.HasPrefix(to, "#") {
				n.Destination = []byte(up + to)
			}
		case blackfriday.HTMLBlock, blackfriday.HTMLSpan:
			n.Literal = bytes.ReplaceAll(n.Literal, []byte(`"docs/images/`), []byte(`"`+up+`images/`))
		}
		return r.RenderNode(&body, n, entering)
	})
	type link struct{ To, Name string }
	nav := []link{{up + "index.html", "podnet"}}
	for _, name := range []string{"install", "cli", "exec", "steer", "config", "dns", "addresses", "ci", "permissions", "architecture"} {
		nav = append(nav, link{up + name + ".html", name})
	}
	var out bytes.Buffer
	err := pageFrame.Execute(&out, map[string]any{"Title": title, "Nav": nav, "Body": template.HTML(body.String())})
	return out.Bytes(), err
}

// plainText is what a node says.
func plainText(n *blackfriday.Node) string {
	var text strings.Builder
	n.Walk(func(n *blackfriday.Node, entering bool) blackfriday.WalkStatus {
		if entering {
			text.Write(n.Literal)
		}
		return blackfriday.GoToNext
	})
	return text.String()
}

// anchor is what GitHub calls a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

var elsewhere = regexp.MustCompile(`^[a-z]+:`)

// leadsTo is where a link of a source leads among the pages; false: nowhere.
func leadsTo(source, to string, sources map[string][]byte) (string, bool) {
	if elsewhere.MatchString(to) || strings.HasPrefix(to, "#") {
		return to, true
	}
	u, err := url.Parse(to)
	if err != nil {
		return to, false
	}
	target := path.Join(path.Dir(source), u.Path)
	if _, ok := sources[target]; !ok {
		return to, false
	}
	u.Path = pageName(target)
	return u.String(), true
}
