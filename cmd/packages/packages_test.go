package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
	"sigs.k8s.io/yaml"
)

// standIn is a program in place of podnet's, which take minutes to build. As the
// helper it leaves a trace of its cleaning up.
const standIn = `package main

import "os"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "cleanup" {
		if err := os.WriteFile("/cleaned", nil, 0o644); err != nil {
			panic(err)
		}
	}
}
`

// packaged makes the packages of one release, once for all tests.
var packaged = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "podnet-packages-test-")
	if err != nil {
		return "", err
	}
	for name, text := range map[string]string{"src/main.go": standIn, "src/go.mod": "module example.org/stand-in\n\ngo 1.26\n"} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			return dir, err
		}
	}
	build := exec.Command("go", "build", "-o", "../stand-in", ".")
	build.Dir = filepath.Join(dir, "src")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if said, err := build.CombinedOutput(); err != nil {
		return dir, errors.New(string(said))
	}
	raw, err := os.ReadFile(filepath.Join(dir, "stand-in"))
	if err != nil {
		return dir, err
	}
	for _, name := range []string{"linux-" + runtime.GOARCH + "/podnet", "darwin-arm64/podnet", "windows-amd64/podnet"} {
		for _, suffix := range []string{"", "-helper", "-tray", "-gateway", "-agent"} {
			name := filepath.Join(dir, "bin", name+suffix)
			if strings.HasPrefix(filepath.Base(filepath.Dir(name)), "windows") {
				name += ".exe"
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, raw, 0o700)); err != nil {
				return dir, err
			}
		}
	}
	return dir, makeAll(context.Background(), optionsIn(dir, "one"))
})

func optionsIn(dir, out string) options {
	return options{root: "../..", bin: filepath.Join(dir, "bin"), out: filepath.Join(dir, out), version: "1.2.3", url: "https://example.org/get",
		date: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), targets: []string{"linux/" + runtime.GOARCH, "darwin/arm64", "windows/amd64"}}
}

// release1 is the folder with the packages.
func release1(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds nfpm and makes packages")
	}
	dir, err := packaged()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "one")
}

func TestMain(m *testing.M) {
	code := m.Run()
	if !testing.Short() {
		dir, _ := packaged() // the tests have told its error
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

var thisDeb = "podnet_1.2.3_linux_" + runtime.GOARCH + ".deb"

func TestReleaseIsWhole(t *testing.T) {
	dir := release1(t)
	var got []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, strings.Replace(e.Name(), runtime.GOARCH+".", "ARCH.", 1))
	}
	want := "SHA256SUMS podnet-agent-image_1.2.3_linux_ARCH.tar podnet-chart-1.2.3.tgz podnet-gateway-image_1.2.3_linux_ARCH.tar podnet-krew.yaml podnet_1.2.3_darwin_arm64.cdx.json podnet_1.2.3_darwin_arm64.tar.gz podnet_1.2.3_linux_ARCH.cdx.json " +
		"podnet_1.2.3_linux_ARCH.deb podnet_1.2.3_linux_ARCH.rpm podnet_1.2.3_linux_ARCH.tar.gz podnet_1.2.3_windows_amd64.cdx.json podnet_1.2.3_windows_amd64.zip"
	if runtime.GOARCH == "amd64" {
		want = strings.ReplaceAll(want, "windows_amd64", "windows_ARCH")
	}
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "--quiet", sumsName)
	check.Dir = dir
	if said, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
}

// The same programs give the same bytes, at another time. See TestOtherComputerSameBytes.
func TestReleaseIsReproducible(t *testing.T) {
	one := release1(t)
	o := optionsIn(filepath.Dir(one), "two")
	if err := makeAll(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for name, sum := range sums(t, one) {
		if again := sums(t, o.out)[name]; again != sum {
			t.Errorf("%s differs", name)
		}
	}
}

// Nothing of whoever makes a release is in the pages.
func TestPagesAreNobodys(t *testing.T) {
	var all []map[string]string
	for _, who := range []string{"ada", "bob"} {
		for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "KUBECONFIG"} {
			t.Setenv(name, filepath.Join("/home", who, name))
		}
		dir := filepath.Join(t.TempDir(), "written")
		if err := writeTo(optionsIn("", ""), dir); err != nil {
			t.Fatal(err)
		}
		all = append(all, checksumsOf(t, dir))
	}
	if d := cmp.Diff(all[0], all[1]); d != "" || len(all[0]) < 20 {
		t.Errorf("%d files: %s", len(all[0]), d)
	}
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, sumsName))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		all[name] = sum
	}
	return all
}

// checksumsOf are those of a folder's files.
func checksumsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		sum, err := checksum(name)
		within, _ := filepath.Rel(dir, name)
		all[within] = sum
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// inside are the files of an archive with their modes.
func inside(t *testing.T, name string) map[string]fs.FileMode {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]fs.FileMode{}
	if path.Ext(name) == ".zip" {
		z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range z.File {
			all[f.Name] = f.Mode()
		}
		return all
	}
	g, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(g); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = h.FileInfo().Mode()
	}
}

func TestArchives(t *testing.T) {
	dir := release1(t)
	for archive, c := range map[string]struct{ has, lacks string }{
		"podnet_1.2.3_linux_" + runtime.GOARCH + ".tar.gz": {"podnet podnet-helper podnet-tray kubectl_complete-podnet LICENSE README.md man/podnet-connect.1 completion/podnet.bash docs/cli.md docs/html/cli.html", "podnet.exe"},
		"podnet_1.2.3_darwin_arm64.tar.gz":                 {"podnet podnet-helper LICENSE man/podnet.1 completion/_podnet", "podnet-tray"},
		"podnet_1.2.3_windows_amd64.zip":                   {"podnet.exe podnet-helper.exe podnet-tray.exe LICENSE completion/podnet.ps1 docs/html/index.html", "man/podnet.1 kubectl_complete-podnet"},
	} {
		files := inside(t, filepath.Join(dir, archive))
		folder := strings.TrimSuffix(strings.TrimSuffix(archive, ".tar.gz"), ".zip") + "/"
		for name := range strings.FieldsSeq(c.has) {
			mode, ok := files[folder+name]
			if !ok {
				t.Errorf("%s lacks %s", archive, name)
			}
			program := path.Dir(name) == "." && (path.Ext(name) == "" || path.Ext(name) == ".exe") && name != "LICENSE"
			if program != (mode&0o111 == 0o111) {
				t.Errorf("%s in %s has mode %v", name, archive, mode)
			}
		}
		for name := range strings.FieldsSeq(c.lacks) {
			if _, ok := files[folder+name]; ok {
				t.Errorf("%s has %s", archive, name)
			}
		}
	}
}

// krew gets what it is told of: archives with those checksums, with the program and
// the licence in them.
func TestKrewManifest(t *testing.T) {
	dir := release1(t)
	raw, err := os.ReadFile(filepath.Join(dir, "podnet-krew.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             struct {
			Version, ShortDescription, Description, Homepage string
			Platforms                                        []struct {
				Selector         struct{ MatchLabels map[string]string }
				URI, SHA256, Bin string
				Files            []struct{ From, To string }
			}
		}
	}
	if err := yaml.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if m.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || m.Kind != "Plugin" || m.Metadata.Name != "podnet" || m.Spec.Version != "v1.2.3" || len(m.Spec.ShortDescription) > 50 || len(m.Spec.Platforms) != 3 {
		t.Errorf("%+v", m)
	}
	made := sums(t, dir)
	for _, p := range m.Spec.Platforms {
		archive := path.Base(p.URI)
		if p.URI != "https://example.org/get/v1.2.3/"+archive || p.SHA256 == "" || made[archive] != p.SHA256 {
			t.Errorf("%s: checksum %s, and that of the archive is %s", p.URI, p.SHA256, made[archive])
		}
		if !strings.Contains(archive, p.Selector.MatchLabels["os"]+"_"+p.Selector.MatchLabels["arch"]) {
			t.Errorf("%s for %v", archive, p.Selector.MatchLabels)
		}
		files := inside(t, filepath.Join(dir, archive))
		found := map[string]bool{}
		for _, f := range p.Files {
			if _, ok := files[f.From]; !ok || f.To != "." {
				t.Errorf("no %s in %s", f.From, archive)
			}
			found[path.Base(f.From)] = true
		}
		if !found[p.Bin] || !found["LICENSE"] {
			t.Errorf("%s: krew takes %v", archive, slices.Sorted(maps.Keys(found)))
		}
	}
}

func TestChartOfARelease(t *testing.T) {
	c, err := loader.Load(filepath.Join(release1(t), "podnet-chart-1.2.3.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil || c.Metadata.Version != "1.2.3" || c.Metadata.AppVersion != "1.2.3" || len(c.Templates) < 5 || len(c.Schema) == 0 {
		t.Errorf("%v: %+v, %d templates", err, c.Metadata, len(c.Templates))
	}
}

func TestRelease(t *testing.T) {
	for version, want := range map[string]string{
		"1.2.3": "1.2.3", "v1.2.3-rc.1": "1.2.3-rc.1", "dev": "0.0.0-dev", "": "0.0.0-dev", "3f2a9c+local": "0.0.0-3f2a9c-local",
	} {
		if got := release(version); got != want {
			t.Errorf("%q: %s, want %s", version, got, want)
		}
	}
}

// A program says itself what is linked into it: this test's, for one.
func TestBill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := options{bin: dir, version: "1.2.3"}
	for _, name := range []string{"podnet", "podnet-helper", "podnet-tray", "podnet-gateway", "podnet-agent"} {
		at := o.program(target{"linux", "amd64"}, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(self, at)); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, "bill.json")
	if err := o.bill(target{"linux", "amd64"}, name); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var b struct {
		BOMFormat, SerialNumber string
		Components              []struct{ Name, Version, Purl string }
	}
	if err := json.Unmarshal(raw, &b); err != nil || b.BOMFormat != "CycloneDX" || b.SerialNumber != "" {
		t.Fatalf("%v: %s", err, raw)
	}
	found := map[string]string{}
	for _, c := range b.Components {
		found[c.Name] = c.Purl
		if c.Version == "" {
			t.Errorf("%s has no version", c.Name)
		}
	}
	if !strings.HasPrefix(found["github.com/spf13/cobra"], "pkg:golang/github.com/spf13/cobra@v1.") || found["stdlib"] == "" {
		t.Errorf("components %v", found)
	}
}
