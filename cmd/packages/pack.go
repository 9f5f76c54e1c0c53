package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"sigs.k8s.io/yaml"
)

// toolsModule has nfpm, which makes .deb and .rpm. It is a module of its own so that
// podnet's needs none of what nfpm needs.
const toolsModule = "deploy/packages/tools.mod"

// The configuration of nfpm, https://nfpm.goreleaser.com/docs/configuration.
type (
	packaging struct {
		Name          string            `json:"name"`
		Arch          string            `json:"arch"`
		Platform      string            `json:"platform"`
		Version       string            `json:"version"`
		VersionSchema string            `json:"version_schema"`
		Section       string            `json:"section"`
		Priority      string            `json:"priority"`
		Maintainer    string            `json:"maintainer"`
		Description   string            `json:"description"`
		Vendor        string            `json:"vendor"`
		Homepage      string            `json:"homepage"`
		License       string            `json:"license"`
		MTime         string            `json:"mtime"`
		Recommends    []string          `json:"recommends"`
		Contents      []packed          `json:"contents"`
		Scripts       map[string]string `json:"scripts"`
		RPM           map[string]string `json:"rpm"`
	}
	packed struct {
		Src  string   `json:"src"`
		Dst  string   `json:"dst"`
		Type string   `json:"type,omitempty"`
		Info fileInfo `json:"file_info"`
	}
	fileInfo struct {
		Mode  uint32 `json:"mode,omitempty"`
		MTime string `json:"mtime"`
	}
)

const description = `a developer's machine on the pod network of a Kubernetes cluster
podnet connect joins a cluster by WireGuard: pods and Services can be reached from
this machine by address and by name, requests to a pod can be steered to it, and
commands run as if they were in the cluster. Needs a gateway in the cluster, which
podnet install puts there.`

// recommends are what the tray copies addresses with.
var recommends = map[string][]string{"deb": {"wl-clipboard | xclip"}, "rpm": {"(wl-clipboard or xclip)"}}

// packaging is what nfpm is told.
func (o options) packaging(kind string, t target, files []file) packaging {
	at := o.date.Format("2006-01-02T15:04:05Z")
	p := packaging{
		Name: "podnet", Arch: t.arch, Platform: "linux", Version: release(o.version), VersionSchema: "semver", Section: "net", Priority: "optional",
		Maintainer: "The podnet authors <packages@podnet.dev>", Vendor: "podnet", Description: description, Homepage: "https://podnet.dev", License: "Apache-2.0", MTime: at,
		Recommends: recommends[kind], RPM: map[string]string{"buildhost": "podnet.dev", "group": "System/Networking"},
		Scripts: map[string]string{},
	}
	for when, name := range map[string]string{"postinstall": "postinst", "preremove": "prerm", "postremove": "postrm"} {
		p.Scripts[when] = filepath.Join(o.root, "deploy/packages/files", name)
	}
	for _, f := range files {
		c := packed{Src: f.from, Dst: f.inPackage, Info: fileInfo{Mode: uint32(f.mode), MTime: at}}
		switch {
		case f.link != "":
			c.Src, c.Type = f.link, "symlink"
		case f.config:
			c.Type = "config|noreplace"
		}
		p.Contents = append(p.Contents, c)
	}
	return p
}

// pack makes a .deb or .rpm.
func (o options) pack(ctx context.Context, kind string, t target, files []file, work string) error {
	text, err := yaml.Marshal(o.packaging(kind, t, files))
	if err != nil {
		return err
	}
	config := filepath.Join(work, kind+"-"+t.String()+".yaml")
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return err
	}
	to := filepath.Join(o.out, "podnet_"+release(o.version)+"_"+t.String()+"."+kind)
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile="+toolsModule, "nfpm", "package", "--config", config, "--packager", kind, "--target", to)
	cmd.Dir = o.root
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(o.date.Unix(), 10))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("nfpm: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
