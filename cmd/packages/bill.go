package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// bill writes which modules are linked into the programs of a system, in which
// versions, as the programs themselves say it (CycloneDX).
func (o options) bill(t target, name string) error {
	var names []string
	for _, p := range programs {
		if p.missing[t.system] == "" {
			names = append(names, p.name)
		}
	}
	if t.system == "linux" {
		names = append(names, inCluster...)
	}
	modules := map[string]cdx.Component{}
	for _, name := range names {
		info, err := buildinfo.ReadFile(o.program(t, name))
		if err != nil {
			return fmt.Errorf("what is in %s: %w", name, err)
		}
		modules["stdlib"] = module("stdlib", strings.TrimPrefix(info.GoVersion, "go"))
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			modules[d.Path] = module(d.Path, d.Version)
		}
	}
	all := make([]cdx.Component, 0, len(modules))
	for _, m := range modules {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b cdx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	podnet := module("podnet.dev", release(o.version))
	podnet.Type = cdx.ComponentTypeApplication
	b := cdx.NewBOM()
	b.Metadata = &cdx.Metadata{Timestamp: o.date.Format("2006-01-02T15:04:05Z"), Component: &podnet, Properties: &[]cdx.Property{{Name: "podnet:system", Value: t.String()}}}
	b.Components = &all
	return writeFile(name, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(b)
	})
}

// module is a Go module with its package URL, https://github.com/package-url/purl-spec.
func module(path, version string) cdx.Component {
	var parts []string
	for p := range strings.SplitSeq(path, "/") {
		parts = append(parts, url.PathEscape(p))
	}
	ref := "pkg:golang/" + strings.Join(parts, "/") + "@" + url.QueryEscape(version)
	return cdx.Component{BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: ref}
}
