package osdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// resolverMarker is the first line of a file in /etc/resolver that is ours.
const resolverMarker = "# podnet wrote this file; disconnecting removes it."

// searchFile is the name of the file that carries search domains and is for no
// domain: macOS takes them from every file of the folder.
const searchFile = "search.podnet"

// resolverFile is what to do with one file; nil content: remove it.
type resolverFile struct {
	name    string
	content []byte
}

// planResolverDir is what to change in macOS' folder of a file per domain
// (man 5 resolver). have is what is there. Files of others are never touched:
// taken are the domains that they have.
func planResolverDir(have map[string]string, want []Config) (ops []resolverFile, taken []string) {
	files := map[string]string{}
	for _, c := range want {
		content := resolverMarker + "\n"
		for _, a := range c.Servers {
			content += "nameserver " + a.String() + "\n"
		}
		for _, d := range c.MatchDomains {
			if d = strings.Trim(strings.ToLower(d), "."); isFileName(d) && files[d] == "" {
				files[d] = content
			}
		}
	}
	if len(want) > 0 && len(want[0].SearchDomains) > 0 {
		files[searchFile] = resolverMarker + "\nsearch " + strings.Join(want[0].SearchDomains, " ") + "\n"
	}
	for name, content := range files {
		had, ok := have[name]
		switch {
		case ok && !strings.HasPrefix(had, resolverMarker):
			taken = append(taken, name)
		case had != content:
			ops = append(ops, resolverFile{name, []byte(content)})
		}
	}
	for name, content := range have {
		if files[name] == "" && strings.HasPrefix(content, resolverMarker) {
			ops = append(ops, resolverFile{name: name})
		}
	}
	slices.SortFunc(ops, func(a, b resolverFile) int {
		return cmp.Or(removalsLast(a.content == nil, b.content == nil), strings.Compare(a.name, b.name))
	})
	slices.Sort(taken)
	return ops, taken
}

// isFileName says whether a domain can name a file: labels of letters, digits,
// hyphens and underscores.
func isFileName(domain string) bool {
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}) {
			return false
		}
	}
	return true
}

func (f resolverFile) String() string {
	if f.content == nil {
		return "remove " + f.name + "\n"
	}
	return "write " + f.name + "\n" + string(f.content)
}

// resolverDir is the Manager for macOS. Its files need no journal: they say
// whose they are.
type resolverDir struct {
	opts  Options
	log   *slog.Logger
	dir   string
	flush func(context.Context) error // makes the system look again

	mu     sync.Mutex
	own    []netip.Addr
	warned bool
	closed bool
}

var _ Manager = (*resolverDir)(nil)

func (r *resolverDir) Mode() string { return ModeResolverDir }

func (r *resolverDir) Set(ctx context.Context, want []Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := check(r.closed, want); err != nil {
		return err
	}
	return r.setLocked(ctx, want)
}

func (r *resolverDir) setLocked(ctx context.Context, want []Config) error {
	if len(want) > 0 {
		if err := os.MkdirAll(r.dir, 0o755); err != nil {
			return fmt.Errorf("set dns: %w", err)
		}
	}
	root, err := os.OpenRoot(r.dir) // no name leads out of it
	if errors.Is(err, fs.ErrNotExist) {
		return nil // and nothing is wanted there
	}
	if err != nil {
		return fmt.Errorf("set dns: %w", err)
	}
	defer root.Close()
	have, err := readResolverDir(root)
	if err != nil {
		return fmt.Errorf("set dns: %w", err)
	}
	ops, taken := planResolverDir(have, want)
	if len(taken) > 0 && !r.warned {
		r.warned = true
		r.opts.Warn(fmt.Sprintf("another program has %s for itself in %s; those names may not resolve", strings.Join(taken, ", "), r.dir))
	}
	for _, op := range ops {
		if err := op.apply(root); err != nil {
			return fmt.Errorf("set dns: %w", err)
		}
	}
	r.own = serversOf(want)
	if len(ops) == 0 {
		return nil
	}
	if err := r.flush(ctx); err != nil {
		r.log.Warn("the system's cache of names was not emptied", "err", err)
	}
	return nil
}

func readResolverDir(root *os.Root) (map[string]string, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	have := map[string]string{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			have[e.Name()] = "" // a link or a folder is not ours
			continue
		}
		b, err := root.ReadFile(e.Name())
		if err != nil {
			return nil, err
		}
		have[e.Name()] = string(b)
	}
	return have, nil
}

func (f resolverFile) apply(root *os.Root) error {
	if f.content == nil {
		return root.Remove(f.name)
	}
	tmp := ".podnet." + f.name // hidden files are for no domain
	if err := root.WriteFile(tmp, f.content, 0o644); err != nil {
		return err
	}
	return root.Rename(tmp, f.name)
}

// Base reads resolv.conf, which macOS writes for those who look there, and which
// has the servers of the network that the machine is in.
func (r *resolverDir) Base() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	content, err := os.ReadFile(r.opts.ResolvConf)
	if err != nil {
		return nil
	}
	return baseServers(content, r.own)
}

func (r *resolverDir) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.setLocked(context.Background(), nil)
}

// resolverPath is the folder, beside resolv.conf.
func resolverPath(opts Options) string {
	return filepath.Join(filepath.Dir(opts.ResolvConf), "resolver")
}
