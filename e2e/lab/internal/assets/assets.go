// Package assets makes what the lab runs: Debian packages, Kubernetes and
// CoreDNS from their Go modules, and the images of the sample shop. Everything
// lands in a cache outside the work tree, under a name that is a hash of what
// it was made from, so that a second run does nothing and needs no network.
package assets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"podnet.dev/e2e/lab/internal/report"
	"podnet.dev/e2e/lab/internal/state"
)

// Versions of what the modules under e2e/ pin.
const (
	KubernetesVersion = "v1.34.4"
	CoreDNSVersion    = "v1.14.7"
)

// Names of the images, as the pods have them.
const (
	ShopImage    = "podnet.dev/shop:lab"
	PauseImage   = "podnet.dev/pause:lab"
	CoreDNSImage = "podnet.dev/coredns:lab"
)

// Set is where everything is.
type Set struct {
	Bin      string   // folder of Kubernetes' programs
	CoreDNS  string   // program
	Shop     string   // program
	Images   []string // tarballs
	Resolved string   // folder with systemd-resolved's files; empty if they could not be had
}

// Fingerprint changes when anything of the set does.
func (s Set) Fingerprint() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, s.Bin, s.CoreDNS, s.Resolved)
	for _, image := range s.Images {
		if err := hashFile(h, image); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// Make brings the cache up to date.
func Make(ctx context.Context, r *report.Report) (Set, error) {
	root, err := sourceRoot()
	if err != nil {
		return Set{}, err
	}
	cache, err := state.Cache()
	if err != nil {
		return Set{}, err
	}
	b := builder{root: root, cache: cache, report: r}
	return b.make(ctx)
}

type builder struct {
	root, cache string
	report      *report.Report
}

func (b builder) make(ctx context.Context) (Set, error) {
	var s Set
	if err := b.debian(ctx); err != nil {
		return s, err
	}
	var err error
	if s.Resolved, err = b.resolved(ctx); err != nil {
		b.report.Say("no systemd-resolved for the laptops: %v", err)
	}
	if err := b.guestKernel(ctx); err != nil {
		b.report.Say("no kernel for e2e/guest's virtual machine: %v", err)
	}
	if s.Bin, err = b.kubernetes(ctx); err != nil {
		return s, err
	}
	if s.CoreDNS, err = b.coreDNS(ctx); err != nil {
		return s, err
	}
	if s.Shop, err = b.ours(ctx, "shop"); err != nil {
		return s, err
	}
	pause, err := b.ours(ctx, "pause")
	if err != nil {
		return s, err
	}
	s.Images, err = b.images(map[string]string{ShopImage: s.Shop, PauseImage: pause, CoreDNSImage: s.CoreDNS})
	return s, err
}

// sourceRoot finds the repository: around the working directory, or around
// this program, which is built into its bin folder.
func sourceRoot() (string, error) {
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if self, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(self))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil && bytes.HasPrefix(content, []byte("module podnet.dev\n")) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("the source of podnet is not around: run lab from the checkout")
}

// key is a short hash of files and words.
func key(files, words []string) (string, error) {
	h := sha256.New()
	for _, f := range files {
		if err := hashFile(h, f); err != nil {
			return "", err
		}
	}
	fmt.Fprintln(h, words)
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func hashFile(h io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintln(h, filepath.Base(file))
	_, err = io.Copy(h, f)
	return err
}

// folder makes a cache folder whole: fill writes into a temporary one, which
// takes its name only when fill succeeded. An existing one is taken as it is.
func (b builder) folder(name string, fill func(tmp string) error) (string, error) {
	dir := filepath.Join(b.cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

// command runs a program and gives its output; what it said is in the error.
func command(ctx context.Context, dir string, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(talk.String()+out.String(), 20))
	}
	return strings.TrimSpace(out.String()), nil
}

// tail is the last n lines.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
