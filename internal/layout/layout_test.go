package layout

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "podnet.dev/"

// door is an outside library that only some packages may import, so that
// there is one place to look when it changes.
type door struct {
	library string   // import path prefix
	keepers []string // packages of ours (prefixes below the module path) that may import it
	why     string
}

var doors = []door{
	{"gvisor.dev/gvisor", []string{"internal/netstack"}, "the TCP/IP stack has one owner"},
	{"golang.zx2c4.com/wireguard/device", []string{"internal/tunnel", "e2e/bench"}, "the WireGuard device has one owner"},
	{"golang.zx2c4.com/wireguard/wgctrl", []string{"internal/key", "client/helper", "e2e/guest"}, "only the privileged half configures the kernel's device"},
	{"github.com/miekg/dns", []string{"dnsproxy", "e2e"}, "only the DNS view speaks DNS messages"},
	{"k8s.io/client-go", []string{"client/cluster", "client/cli/jsonpath", "gateway", "dnsproxy/kube", "e2e"}, "Kubernetes is reached from few places; its jsonpath reaches nothing"},
	{"sigs.k8s.io/controller-runtime", []string{"client/cluster", "gateway", "dnsproxy/kube", "e2e"}, "Kubernetes is reached from few places"},
	{"github.com/pion/stun", []string{"internal/transport", "e2e"}, "STUN is asked from WireGuard's own socket"},
	{"github.com/vishvananda/netlink", []string{"client/router", "client/helper", "client/netwatch", "client/sandbox", "e2e"}, "only the privileged half changes the host; netwatch reads, a sandbox has a network of its own"},
	{"github.com/google/nftables", []string{"gateway/agent"}, "only the agent translates addresses, in its pod"},
	{"github.com/mdlayher/netlink", []string{"gateway/agent"}, "the library below nftables, for what that cannot say"},
	{"github.com/godbus/dbus", []string{"client/osdns", "client/tray/desktop", "e2e"}, "the buses are spoken to about DNS and about the icon only"},
	{"fyne.io/systray", []string{"client/tray/desktop"}, "the icon has one place"},
}

// apart lists pairs of which the first, a folder of ours, must not reach the
// second, an import path, directly or through others.
var apart = []struct{ from, to, why string }{
	{"client", module + "gateway", "the two ends share api and internal, nothing else"},
	{"gateway", module + "client", "the two ends share api and internal, nothing else"},
	{"internal", module + "client", "internal serves both ends and knows neither"},
	{"internal", module + "gateway", "internal serves both ends and knows neither"},
	{"internal", module + "dnsproxy", "internal serves and is not served"},
	{"dnsproxy", module + "client", "the DNS view is used by the ends, not the reverse"},
	{"dnsproxy", module + "gateway", "the DNS view is used by the ends, not the reverse"},
	{"api", module + "internal", "the API objects stand alone"},
	{"client/localapi", "k8s.io", "whoever speaks the local API must not link Kubernetes"},
	{"client/ui", "k8s.io", "a page speaks the local API"},
	{"client/ui", module + "client/daemon", "a page speaks the local API"},
	{"client/words", module + "client/localapi", "words serve every view"},
	{"client/tray", "k8s.io", "the icon speaks only the local API"},
	{"client/tray", module + "client/daemon", "the icon speaks only the local API"},
	{"client/router", "k8s.io", "the privileged half must not link Kubernetes"},
	{"client/osdns", "k8s.io", "the privileged half must not link Kubernetes"},
	{"client/netwatch", "k8s.io", "who watches the host must not link Kubernetes"},
	{"client/sandbox", "k8s.io", "a room for commands knows nothing of clusters"},
	{"client/helper", "k8s.io", "the privileged half must not link Kubernetes"},
	{"client/helper", "github.com/miekg/dns", "the privileged half parses no network input"},
	{"client/helper", "net/http", "the privileged half is no HTTP client"},
	{"client/kernel", "k8s.io", "a device knows nothing of clusters"},
	{"cmd/podnet-helper", "k8s.io", "the privileged half must not link Kubernetes"},
	{"cmd/podnet-helper", "sigs.k8s.io", "the privileged half must not link Kubernetes"},
	{"cmd/podnet-helper", "github.com/miekg/dns", "the privileged half parses no network input"},
	{"cmd/podnet-helper", "net/http", "the privileged half is no HTTP client"},
	{"cmd/podnet-helper", "github.com/spf13/cobra", "the privileged half is small"},
	{"cmd/podnet-helper", "golang.zx2c4.com/wireguard/device", "the privileged half sees no packet"},
	{"dnsproxy/claims", "k8s.io", "whose an address is, DNS says"},
	{"internal/forward", "k8s.io", "flows know nothing of Kubernetes"},
	{"gateway/agent", "k8s.io", "the agent in a pod must be small"},
	{"gateway/agent", module + "internal/transport", "the agent has one path to a gateway"},
	{"internal/steer", module + "internal/transport", "what is decided knows no paths"},
	{"internal/netstack", "k8s.io", "the stack knows nothing of Kubernetes"},
	{"internal/transport", "k8s.io", "paths know nothing of Kubernetes"},
	{"internal/paths", "net", "the choice of a path is pure"},
	{"internal/probe", module + "internal/transport", "probes are bytes, whoever carries them"},
	{"internal/nat", module + "internal/transport", "what servers said is judged apart from asking them"},
}

// commands are the rooms of the command line that have commands in them. client/cli puts
// them together; they know nothing of each other, and what they share knows none of them.
var commands = []string{"client/cli/admin", "client/cli/complete", "client/cli/export", "client/cli/inbound", "client/cli/outbound", "client/cli/report", "client/cli/settings"}

// maxHelper is how many lines podnet-helper may have of its own, comments and all:
// what stands between its socket and the host. What it drives, client/helper with
// client/router and client/osdns, it shares with podnet run by root.
const maxHelper = 1500

func TestTheHelperIsSmall(t *testing.T) {
	lines := 0
	for _, dir := range []string{"cmd/podnet-helper", "client/helper/serve", "client/helper/wire"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			lines += strings.Count(string(text), "\n")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if lines == 0 || lines > maxHelper {
		t.Errorf("the helper has %d lines, at most %d", lines, maxHelper)
	}
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImports(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages: is the test looking at the right module?", len(pkgs))
	}
	for _, p := range pkgs {
		here := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			if under(imp, module+"cmd") {
				t.Errorf("%s imports %s: programs are on top", here, imp)
			}
			if strings.HasPrefix(here, "client/cli/") && !fake(here) && slices.Contains(commands, strings.TrimPrefix(imp, module)) {
				t.Errorf("%s imports %s: only client/cli puts rooms of commands together", here, imp)
			}
			for _, d := range doors {
				if under(imp, d.library) && !keeper(here, d.keepers) {
					t.Errorf("%s imports %s: %s", here, imp, d.why)
				}
			}
		}
		for _, a := range apart {
			if !under(here, a.from) {
				continue
			}
			for _, dep := range p.Deps {
				if under(dep, a.to) {
					t.Errorf("%s reaches %s: %s", here, dep, a.why)
					break
				}
			}
		}
	}
}

// TestFoldersFormNoCircle looks at the top-level folders as rooms: an arrow
// between two rooms may run one way only.
func TestFoldersFormNoCircle(t *testing.T) {
	arrows := map[string]map[string]bool{}
	for _, p := range list(t) {
		from := room(p.ImportPath)
		for _, imp := range p.Imports {
			if to := room(imp); strings.HasPrefix(imp, module) && to != from {
				if arrows[from] == nil {
					arrows[from] = map[string]bool{}
				}
				arrows[from][to] = true
			}
		}
	}
	var trail []string
	done := map[string]bool{}
	var visit func(string)
	visit = func(r string) {
		for i, seen := range trail {
			if seen == r {
				t.Errorf("folders import each other in a circle: %s", strings.Join(append(trail[i:], r), " -> "))
				return
			}
		}
		if done[r] {
			return
		}
		trail = append(trail, r)
		for to := range arrows[r] {
			visit(to)
		}
		trail = trail[:len(trail)-1]
		done[r] = true
	}
	for r := range arrows {
		visit(r)
	}
}

// TestFoldersAreToldOf: docs/architecture.md has a row for each package that a program
// is made of, fakes apart, and none for one that is gone.
func TestFoldersAreToldOf(t *testing.T) {
	root := os.DirFS("../..")
	text := read(t, root, "docs/architecture.md")
	_, table, _ := strings.Cut(text, "\n## Folders\n")
	told := map[string]bool{}
	for _, name := range regexp.MustCompile("`((?:api|client|cmd|deploy|dnsproxy|e2e|gateway|internal)(?:/[a-z0-9]+)*)`").FindAllStringSubmatch(table, -1) {
		told[name[1]] = true
		if _, err := fs.Stat(root, name[1]); err != nil {
			t.Errorf("docs/architecture.md: %v", err)
		}
	}
	for _, p := range list(t) {
		here := strings.TrimPrefix(p.ImportPath, module)
		switch first := room(p.ImportPath); {
		case first == "cmd", first == "deploy", first == "e2e", fake(here):
		case !told[here]:
			t.Errorf("docs/architecture.md does not say what %s is for", here)
		}
	}
}

func room(importPath string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(importPath, module), "/")
	return first
}

// fake says that a package pretends to be another, for tests.
func fake(here string) bool { return strings.HasPrefix(path.Base(here), "fake") }

func under(p, prefix string) bool { return p == prefix || strings.HasPrefix(p, prefix+"/") }

func keeper(here string, keepers []string) bool {
	for _, k := range keepers {
		if under(here, k) {
			return true
		}
	}
	return false
}

// list asks the go command for every package of the module with all that it
// reaches, tests left out.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = path.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
