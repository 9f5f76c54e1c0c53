package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"podnet.dev/client/cli"
	"podnet.dev/client/cli/admin"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cluster"
)

// file is one that is released.
type file struct {
	from string // on this machine; empty where there is a link
	// inArchive is where it stands in an archive, inPackage in a .deb or .rpm; empty:
	// it does not.
	inArchive, inPackage string
	mode                 os.FileMode
	link                 string // what a link leads to
	config               bool   // who changes it keeps his changes
	only                 string // deb or rpm; empty: both
}

// program is one that a laptop has.
type program struct {
	name, inPackage string
	missing         map[string]string // systems that have none, and why
}

var programs = []program{
	{"podnet", "/usr/bin/podnet", nil},
	{"podnet-helper", "/usr/libexec/podnet-helper", nil},
	{"podnet-tray", "/usr/bin/podnet-tray", map[string]string{"darwin": "an icon in its menu bar needs cgo"}},
}

// inCluster are the programs that run in a cluster, on Linux. Images have them.
var inCluster = []string{"podnet-agent", "podnet-gateway"}

// contents are the files of one system, sorted by name.
func (o options) contents(t target, made written) ([]file, error) {
	var all []file
	for _, p := range programs {
		if p.missing[t.system] != "" {
			continue
		}
		name := p.name
		if t.system == "windows" {
			name += ".exe"
		}
		all = append(all, file{from: o.program(t, p.name), inArchive: name, inPackage: p.inPackage, mode: 0o755})
	}
	source := func(name string) string { return filepath.Join(o.root, filepath.FromSlash(name)) }
	all = append(all,
		file{link: "podnet", inPackage: "/usr/bin/kubectl-podnet"},
		file{from: source("deploy/krew/kubectl_complete-podnet"), inArchive: "kubectl_complete-podnet", inPackage: "/usr/bin/kubectl_complete-podnet", mode: 0o755},
		file{from: source("LICENSE"), inArchive: "LICENSE", inPackage: "/usr/share/doc/podnet/copyright", mode: 0o644},
		file{from: source("README.md"), inArchive: "README.md", inPackage: "/usr/share/doc/podnet/README.md", mode: 0o644},
		file{from: source("CHANGELOG.md"), inArchive: "CHANGELOG.md", inPackage: "/usr/share/doc/podnet/CHANGELOG.md", mode: 0o644},
		file{from: source("deploy/packages/files/podnet-tray.desktop"), inPackage: "/usr/share/applications/podnet-tray.desktop", mode: 0o644},
		file{from: source("deploy/packages/files/podnet.apparmor"), inPackage: "/usr/share/podnet/podnet.apparmor", mode: 0o644, only: "deb"},
		file{from: made.completion["bash"], inArchive: "completion/podnet.bash", inPackage: "/usr/share/bash-completion/completions/podnet", mode: 0o644},
		file{from: made.completion["zsh"], inArchive: "completion/_podnet", inPackage: "/usr/share/zsh/vendor-completions/_podnet", mode: 0o644, only: "deb"},
		file{from: made.completion["zsh"], inPackage: "/usr/share/zsh/site-functions/_podnet", mode: 0o644, only: "rpm"},
		file{from: made.completion["fish"], inArchive: "completion/podnet.fish", inPackage: "/usr/share/fish/vendor_completions.d/podnet.fish", mode: 0o644},
		file{from: made.completion["powershell"], inArchive: "completion/podnet.ps1", mode: 0o644},
	)
	for _, page := range made.man {
		all = append(all, file{from: page, inArchive: "man/" + strings.TrimSuffix(filepath.Base(page), ".gz"), inPackage: "/usr/share/man/man1/" + filepath.Base(page), mode: 0o644})
	}
	for name, page := range made.pages {
		all = append(all, file{from: page, inArchive: "docs/html/" + name, inPackage: "/usr/share/doc/podnet/html/" + name, mode: 0o644})
	}
	for _, pattern := range []struct{ glob, dir string }{
		{"deploy/systemd/*.socket", "/usr/lib/systemd/system/"}, {"deploy/systemd/*.service", "/usr/lib/systemd/system/"},
		{"docs/*.md", "/usr/share/doc/podnet/docs/"},
	} {
		found, err := filepath.Glob(source(pattern.glob))
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("find %s: %w", pattern.glob, os.ErrNotExist)
		}
		for _, from := range found {
			f := file{from: from, inPackage: pattern.dir + filepath.Base(from), mode: 0o644}
			if strings.HasPrefix(pattern.glob, "docs/") {
				f.inArchive = "docs/" + filepath.Base(from)
			}
			all = append(all, f)
		}
	}
	all = append(all, file{from: source("deploy/systemd/helper.yaml"), inPackage: "/etc/podnet/helper.yaml", mode: 0o644, config: true})
	return all, nil
}

// program is where make cross has put one.
func (o options) program(t target, name string) string {
	if t.system == "windows" {
		name += ".exe"
	}
	return filepath.Join(o.bin, t.system+"-"+t.arch, name)
}

// forArchive are the files of an archive. Pages and shell's words are for those who
// have them.
func forArchive(t target, all []file) []file {
	var out []file
	for _, f := range all {
		windows := path.Dir(f.inArchive) == "man" || f.inArchive == "kubectl_complete-podnet" || path.Dir(f.inArchive) == "completion" && path.Ext(f.inArchive) != ".ps1"
		if f.inArchive != "" && !(t.system == "windows" && windows) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.inArchive, b.inArchive) })
	return out
}

// forPackage are the files of a .deb or .rpm.
func forPackage(kind string, all []file) []file {
	var out []file
	for _, f := range all {
		if f.inPackage != "" && (f.only == "" || f.only == kind) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.inPackage, b.inPackage) })
	return out
}

// written is what podnet's commands say about themselves, in files.
type written struct {
	completion map[string]string // by shell
	man        []string          // gzipped pages
	pages      map[string]string // of the documentation, by name
}

// write has the commands written about in dir.
func write(o options, dir string) (written, error) {
	root := cli.Tree(cli.Env{Env: caller.Env{Kube: cluster.NewFlags()}, Clusters: admin.Clusters{DefaultImage: "podnet.dev/gateway:" + o.version, DefaultAgentImage: "podnet.dev/agent:" + o.version}})
	root.DisableAutoGenTag = true
	if home, err := os.UserHomeDir(); err == nil {
		nobodys(root, home)
	}
	w := written{completion: map[string]string{}}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		var text bytes.Buffer
		root.SetOut(&text)
		root.SetArgs([]string{"completion", shell})
		if err := root.Execute(); err != nil {
			return w, fmt.Errorf("completion for %s: %w", shell, err)
		}
		name := filepath.Join(dir, "completion."+shell)
		if err := os.WriteFile(name, text.Bytes(), 0o644); err != nil {
			return w, err
		}
		w.completion[shell] = name
	}
	pages := filepath.Join(dir, "man")
	if err := os.Mkdir(pages, 0o755); err != nil {
		return w, err
	}
	if err := doc.GenManTree(root, &doc.GenManHeader{Title: "PODNET", Section: "1", Date: &o.date, Source: "podnet " + o.version, Manual: "podnet"}, pages); err != nil {
		return w, fmt.Errorf("man pages: %w", err)
	}
	plain, err := filepath.Glob(filepath.Join(pages, "*.1"))
	for _, page := range plain {
		raw, err := os.ReadFile(page)
		if err != nil {
			return w, err
		}
		if err := os.WriteFile(page+".gz", zipped(raw), 0o644); err != nil {
			return w, err
		}
		w.man = append(w.man, page+".gz")
	}
	return w, err
}

// nobodys has what flags default to below a home say so of anybody's.
func nobodys(c *cobra.Command, home string) {
	for _, flags := range []*pflag.FlagSet{c.PersistentFlags(), c.Flags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			if below, ok := strings.CutPrefix(f.DefValue, home+"/"); ok {
				f.DefValue = "~/" + below
			}
		})
	}
	for _, sub := range c.Commands() {
		nobodys(sub, home)
	}
}

// zipped is gzip without a name and a time.
func zipped(raw []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is one of its own
	_, _ = z.Write(raw)                                   // to memory
	_ = z.Close()
	return b.Bytes()
}
