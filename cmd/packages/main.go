// Packages makes what podnet is released as from the programs that make cross has
// built: a .deb and an .rpm for Linux, an archive for each system, the Helm chart,
// the images of gateway and agent, the manifest for krew, lists of what is inside (SBOM)
// and checksums, which the releaser's key signs. The same programs give the same bytes.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("packages: ")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	var date int64
	var targets string
	flag.StringVar(&o.root, "root", ".", "folder of the sources")
	flag.StringVar(&o.bin, "bin", "bin/cross", "folder with a folder of programs for each system, as linux-amd64")
	flag.StringVar(&o.out, "out", "bin/packages", "folder to make; what is there goes")
	flag.StringVar(&o.version, "version", "dev", "the release")
	flag.Int64Var(&date, "date", 0, "when it was made, in seconds since 1970: that of its commit")
	flag.StringVar(&o.url, "url", "https://podnet.dev/releases", "where krew will find the archives, below the version")
	flag.StringVar(&targets, "targets", strings.Join(systems, " "), "systems to make packages for")
	flag.StringVar(&o.key, "key", os.Getenv(keyVariable), "file with the SSH key to sign with, or with its public half if an agent has it")
	flag.StringVar(&o.only, "only", "", "make nothing but this kind of package: deb or rpm")
	written := flag.String("written", "", "write man pages and completion into this new folder, and do nothing else")
	flag.Parse()
	o.targets, o.date = strings.Fields(targets), time.Unix(date, 0).UTC()
	if *written != "" {
		if err := writeTo(o, *written); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := makeAll(ctx, o); err != nil {
		log.Fatal(err)
	}
}

// systems are those that podnet is built for, as GOOS/GOARCH.
var systems = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"}

type options struct {
	root, bin, out string
	version, url   string
	date           time.Time
	targets        []string
	key            string // file of the SSH key that signs; empty: nobody does
	only           string // the one kind of package to make; empty: everything
}

// release is the version in the form that every kind of package takes: semantic, and
// before all others where it was none.
func release(version string) string {
	v := strings.TrimPrefix(version, "v")
	if semver.IsValid("v" + v) {
		return v
	}
	if v = strings.Trim(regexp.MustCompile(`[^0-9A-Za-z-]+`).ReplaceAllString(v, "-"), "-"); v == "" {
		v = "dev"
	}
	return "0.0.0-" + v
}

// target is one system.
type target struct{ system, arch string }

func (t target) String() string { return t.system + "_" + t.arch }

// writeTo writes what stands in a package about podnet's commands into a folder.
func writeTo(o options, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	_, err := write(o, dir)
	return err
}

// makeAll makes everything.
func makeAll(ctx context.Context, o options) (err error) {
	for _, dir := range []*string{&o.root, &o.bin, &o.out} { // nfpm runs in root
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(o.out); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "podnet-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	made, err := write(o, work)
	if err != nil {
		return err
	}
	if made.pages, err = o.pages(filepath.Join(work, "html")); err != nil {
		return fmt.Errorf("pages: %w", err)
	}
	for _, name := range o.targets {
		if !slices.Contains(systems, name) {
			return fmt.Errorf("%s: want one of %s", name, strings.Join(systems, ", "))
		}
		system, arch, _ := strings.Cut(name, "/")
		if err := o.makeFor(ctx, target{system, arch}, made, work); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if o.only != "" {
		return nil
	}
	if err := o.chart(); err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	if err := o.krew(); err != nil {
		return fmt.Errorf("krew: %w", err)
	}
	if err := checksums(o.out); err != nil {
		return err
	}
	return o.sign(ctx)
}

// makeFor makes what there is for one system.
func (o options) makeFor(ctx context.Context, t target, made written, work string) error {
	name := "podnet_" + release(o.version) + "_" + t.String()
	all, err := o.contents(t, made)
	if err != nil {
		return err
	}
	if o.only != "" {
		return o.pack(ctx, o.only, t, forPackage(o.only, all), work)
	}
	if err := o.archive(t, filepath.Join(o.out, name), forArchive(t, all)); err != nil {
		return err
	}
	if err := o.bill(t, filepath.Join(o.out, name+".cdx.json")); err != nil {
		return err
	}
	if t.system != "linux" {
		return nil
	}
	if err := o.images(t); err != nil {
		return err
	}
	for _, kind := range []string{"deb", "rpm"} {
		if err := o.pack(ctx, kind, t, forPackage(kind, all), work); err != nil {
			return err
		}
	}
	return nil
}
