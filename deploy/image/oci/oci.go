// Package oci makes container images out of static binaries: an empty base,
// one layer, nothing else. The same input gives the same bytes, so an image's
// digest says which binaries are in it. It knows no registry and no network.
package oci

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// NonRoot is the user images run as unless told otherwise: the number that
// Pod Security's "restricted" images have come to use.
const NonRoot = "65532:65532"

// epoch is the time of every file and of the image. Unix time 0 would do, but
// some tools show it as "never".
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// Spec says what an image holds and how it starts.
type Spec struct {
	Name       string            // "podnet.dev/gateway:dev"
	Files      map[string]string // path in the image -> file on this machine; all are mode 0755, owned by root
	Entrypoint []string
	User       string // "uid:gid"; empty is NonRoot
	Labels     map[string]string
	Arch       string // GOARCH of the binaries; empty is amd64
}

// FromBinary is the Spec of an image that only runs one binary, which keeps
// its base name.
func FromBinary(name, binary string) Spec {
	at := "/" + filepath.Base(binary)
	return Spec{Name: name, Files: map[string]string{at: binary}, Entrypoint: []string{at}}
}

// Build reads the files and makes the image.
func Build(s Spec) (v1.Image, error) {
	content, err := layer(s.Files)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("make layer of %s: %w", s.Name, err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, fmt.Errorf("add layer to %s: %w", s.Name, err)
	}
	user, arch := s.User, s.Arch
	if user == "" {
		user = NonRoot
	}
	if arch == "" {
		arch = "amd64"
	}
	have, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", s.Name, err)
	}
	config := have.DeepCopy()
	config.Created = v1.Time{Time: epoch}
	config.OS, config.Architecture = "linux", arch
	config.History = []v1.History{{Created: v1.Time{Time: epoch}, CreatedBy: "podnet image"}}
	config.Config = v1.Config{
		Entrypoint: s.Entrypoint,
		User:       user,
		WorkingDir: "/",
		Labels:     s.Labels,
		Env:        []string{"PATH=/"},
	}
	return mutate.ConfigFile(img, config)
}

// WriteFile builds the image and writes it as a tarball that "docker load"
// and "ctr images import" take. The file appears complete or not at all.
func WriteFile(file string, s Spec) error {
	tag, err := name.NewTag(s.Name)
	if err != nil {
		return fmt.Errorf("image name %q: %w", s.Name, err)
	}
	img, err := Build(s)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := tarball.Write(tag, img, tmp); err != nil {
		return fmt.Errorf("write image %s: %w", s.Name, err)
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// layer is the tar of the files and of the directories above them, in order.
func layer(files map[string]string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{"/": true}
	for _, at := range slices.Sorted(maps.Keys(files)) {
		if !path.IsAbs(at) || path.Clean(at) != at {
			return nil, fmt.Errorf("path %q in the image is not absolute and clean", at)
		}
		for _, dir := range parents(at) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := w.WriteHeader(header(dir, tar.TypeDir, 0)); err != nil {
				return nil, err
			}
		}
		content, err := os.ReadFile(files[at])
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(header(at, tar.TypeReg, int64(len(content)))); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func header(at string, kind byte, size int64) *tar.Header {
	name := strings.TrimPrefix(at, "/")
	if kind == tar.TypeDir {
		name += "/"
	}
	return &tar.Header{Typeflag: kind, Name: name, Size: size, Mode: 0o755, ModTime: epoch, Format: tar.FormatUSTAR}
}

// parents are the directories above a clean absolute path, outermost first.
func parents(at string) []string {
	var dirs []string
	for dir := path.Dir(at); dir != "/"; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}
