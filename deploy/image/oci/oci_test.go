package oci

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func write(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server")
	if err := os.WriteFile(file, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSameBinarySameBytes builds twice from files that differ in all but
// content: path, time and mode.
func TestSameBinarySameBytes(t *testing.T) {
	var images [][]byte
	for i := range 2 {
		binary := write(t, "content")
		when := time.Unix(int64(1000*i), 0)
		if err := os.Chtimes(binary, when, when); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "image.tar")
		spec := FromBinary("podnet.dev/server:dev", binary)
		spec.Labels = map[string]string{"a": "1", "b": "2", "c": "3"}
		if err := WriteFile(out, spec); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, content)
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two builds of the same binary differ")
	}
}

func TestOtherBinaryOtherDigest(t *testing.T) {
	one, err := Build(FromBinary("x", write(t, "one")))
	if err != nil {
		t.Fatal(err)
	}
	two, err := Build(FromBinary("x", write(t, "two")))
	if err != nil {
		t.Fatal(err)
	}
	d1, _ := one.Digest()
	d2, _ := two.Digest()
	if d1 == d2 {
		t.Errorf("both have digest %s", d1)
	}
}

// TestImageReadsBack reads a written image as a container runtime does.
func TestImageReadsBack(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	spec := Spec{
		Name:       "podnet.dev/server:dev",
		Files:      map[string]string{"/usr/bin/server": write(t, "content")},
		Entrypoint: []string{"/usr/bin/server", "--all"},
		Labels:     map[string]string{"org.opencontainers.image.licenses": "Apache-2.0"},
	}
	if err := WriteFile(out, spec); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != NonRoot || config.OS != "linux" || config.Architecture != "amd64" {
		t.Errorf("user %q, platform %s/%s", config.Config.User, config.OS, config.Architecture)
	}
	if !slices.Equal(config.Config.Entrypoint, spec.Entrypoint) {
		t.Errorf("entrypoint %q", config.Config.Entrypoint)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	r := tar.NewReader(content)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Mode != 0o755 || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: uid %d, mode %o, time %v", h.Name, h.Uid, h.Mode, h.ModTime)
		}
		names = append(names, h.Name)
	}
	if want := []string{"usr/", "usr/bin/", "usr/bin/server"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

func TestBadSpecs(t *testing.T) {
	for why, spec := range map[string]Spec{
		"relative path": {Name: "a", Files: map[string]string{"bin/x": write(t, "x")}},
		"dotted path":   {Name: "a", Files: map[string]string{"/../x": write(t, "x")}},
		"no such file":  {Name: "a", Files: map[string]string{"/x": "/nowhere/x"}},
		"bad name":      {Name: "UPPER CASE"},
	} {
		out := filepath.Join(t.TempDir(), "image.tar")
		if err := WriteFile(out, spec); err == nil {
			t.Errorf("%s: accepted", why)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: left a file", why)
		}
	}
}
