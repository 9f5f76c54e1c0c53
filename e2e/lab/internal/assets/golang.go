package assets

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"podnet.dev/deploy/image/oci"
)

// goEnv makes static, reproducible programs; the work tree's own settings
// (vendoring, workspaces) have no say.
var goEnv = []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false"}

// kubernetesPrograms are built into one folder.
var kubernetesPrograms = []string{
	"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
}

// kubernetesFlags give the programs their version: without it version checks fail.
func kubernetesFlags() string {
	v := strings.Split(strings.TrimPrefix(KubernetesVersion, "v"), ".")
	return fmt.Sprintf("-X k8s.io/component-base/version.gitVersion=%s"+
		" -X k8s.io/component-base/version.gitMajor=%s -X k8s.io/component-base/version.gitMinor=%s"+
		" -X k8s.io/client-go/pkg/version.gitVersion=%s -s -w", KubernetesVersion, v[0], v[1], KubernetesVersion)
}

func (b builder) kubernetes(ctx context.Context) (string, error) {
	var packages []string
	for _, p := range kubernetesPrograms {
		packages = append(packages, "k8s.io/kubernetes/cmd/"+p)
	}
	dir, err := b.module(ctx, "kubernetes", KubernetesVersion, kubernetesFlags(), packages)
	if err != nil {
		return "", fmt.Errorf("build Kubernetes: %w", err)
	}
	return dir, nil
}

func (b builder) coreDNS(ctx context.Context) (string, error) {
	dir, err := b.module(ctx, "coredns", CoreDNSVersion, "-s -w", []string{"."})
	if err != nil {
		return "", fmt.Errorf("build CoreDNS: %w", err)
	}
	return filepath.Join(dir, "coredns"), nil
}

// module builds packages in the module e2e/NAME into the cache.
func (b builder) module(ctx context.Context, name, version, ldflags string, packages []string) (string, error) {
	src := filepath.Join(b.root, "e2e", name)
	files := []string{filepath.Join(src, "go.mod"), filepath.Join(src, "go.sum")}
	own, err := filepath.Glob(filepath.Join(src, "*.go"))
	if err != nil {
		return "", err
	}
	toolchain, err := command(ctx, src, goEnv, "go", "env", "GOVERSION")
	if err != nil {
		return "", fmt.Errorf("the lab builds Kubernetes with Go, which does not run: %w", err)
	}
	k, err := key(append(files, own...), append([]string{toolchain, ldflags, version}, packages...))
	if err != nil {
		return "", err
	}
	return b.folder(filepath.Join(name, version+"-"+k), func(tmp string) error {
		start := time.Now()
		b.report.Say("building %s %s from its Go module (minutes when nothing is cached)", name, version)
		if err := b.goBuild(ctx, src, name, tmp, ldflags, packages); err != nil {
			return err
		}
		b.report.Say("built %s %s (%s)", name, version, time.Since(start).Round(time.Second))
		return nil
	})
}

// goBuild builds and shows how many packages are done.
func (b builder) goBuild(ctx context.Context, src, name, out, ldflags string, packages []string) error {
	deps, err := command(ctx, src, goEnv, append([]string{"go", "list", "-deps"}, packages...)...)
	if err != nil {
		return err
	}
	total := strings.Count(deps, "\n") + 1
	args := append([]string{"build", "-v", "-trimpath", "-ldflags", ldflags, "-o", out + "/"}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), goEnv...)
	talk, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var done atomic.Int64
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for tick := time.NewTicker(15 * time.Second); ; {
			select {
			case <-tick.C:
				// Packages that are in Go's cache are not counted by go build.
				b.report.Say("  %s: compiled %d of at most %d packages", name, done.Load(), total)
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	var said []string
	for lines := bufio.NewScanner(talk); lines.Scan(); {
		line := lines.Text()
		if !strings.ContainsAny(line, " :") {
			done.Add(1)
			continue
		}
		if !strings.HasPrefix(line, "go: downloading") {
			said = append(said, line)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, tail(strings.Join(said, "\n"), 20))
	}
	return nil
}

// ours builds a program of this repository. Go's own cache makes that a
// second's work when nothing changed.
func (b builder) ours(ctx context.Context, name string) (string, error) {
	out := filepath.Join(b.cache, "bin", name)
	_, err := command(ctx, b.root, goEnv, "go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", out, "./e2e/"+name)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return out, nil
}

// images writes an image for each program, unless the one in the cache was made
// from the same bytes.
func (b builder) images(programs map[string]string) ([]string, error) {
	var files []string
	for _, name := range []string{PauseImage, ShopImage, CoreDNSImage} {
		k, err := key([]string{programs[name]}, []string{name, oci.NonRoot})
		if err != nil {
			return nil, err
		}
		dir, err := b.folder(filepath.Join("images", k), func(tmp string) error {
			return oci.WriteFile(filepath.Join(tmp, "image.tar"), oci.FromBinary(name, programs[name]))
		})
		if err != nil {
			return nil, fmt.Errorf("make image %s: %w", name, err)
		}
		files = append(files, filepath.Join(dir, "image.tar"))
	}
	return files, nil
}
