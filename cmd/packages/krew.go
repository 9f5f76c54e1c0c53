package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

// krew makes the manifest for kubectl's plugin manager, with the archives' checksums.
func (o options) krew() error {
	name := filepath.Join(o.root, "deploy/krew/podnet.yaml")
	t, err := template.ParseFiles(name)
	if err != nil {
		return err
	}
	type platform struct{ OS, Arch, URI, SHA256, Folder, Bin string }
	var platforms []platform
	for _, s := range o.targets {
		system, arch, _ := strings.Cut(s, "/")
		p := platform{OS: system, Arch: arch, Folder: "podnet_" + release(o.version) + "_" + system + "_" + arch, Bin: "podnet"}
		archive := p.Folder + ".tar.gz"
		if system == "windows" {
			archive, p.Bin = p.Folder+".zip", "podnet.exe"
		}
		if p.SHA256, err = checksum(filepath.Join(o.out, archive)); err != nil {
			return err
		}
		p.URI = o.url + "/v" + release(o.version) + "/" + archive
		platforms = append(platforms, p)
	}
	return writeFile(filepath.Join(o.out, "podnet-krew.yaml"), func(w io.Writer) error {
		return t.Execute(w, map[string]any{"Version": "v" + release(o.version), "Platforms": platforms})
	})
}

// chart makes an archive of the Helm chart, as helm package does, with the release's
// numbers.
func (o options) chart() error {
	root := filepath.Join(o.root, "deploy/helm/podnet")
	var names []string
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		within, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if within == "Chart.yaml" {
			if raw, err = numbered(raw, release(o.version), o.version); err != nil {
				return err
			}
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join("podnet", filepath.ToSlash(within)), Mode: 0o644, Size: int64(len(raw)), ModTime: o.date, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(raw); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "podnet-chart-"+release(o.version)+".tgz"), out.Bytes(), 0o644)
}

var (
	chartVersion = regexp.MustCompile(`(?m)^version: .*$`)
	appVersion   = regexp.MustCompile(`(?m)^appVersion: .*$`)
)

// numbered is a Chart.yaml with the versions of the chart and of the images.
func numbered(text []byte, chart, app string) ([]byte, error) {
	if len(chartVersion.FindAll(text, -1)) != 1 || len(appVersion.FindAll(text, -1)) != 1 {
		return nil, errors.New("version or appVersion of Chart.yaml is missing, or there twice")
	}
	text = chartVersion.ReplaceAllLiteral(text, []byte("version: "+chart))
	return appVersion.ReplaceAllLiteral(text, fmt.Appendf(nil, "appVersion: %q", app)), nil
}
