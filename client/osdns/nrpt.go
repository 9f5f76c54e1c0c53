package osdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Windows has a Name Resolution Policy Table: rules that say which servers are
// asked for which domains. It is in the registry, below one key for this machine's
// own rules and another for those of group policy. Where there are any of the
// latter, the former count for nothing.
const (
	nrptLocal  = `SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig`
	nrptPolicy = `SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig`
)

const (
	// nrptRule is how the names of our rules begin; two digits follow.
	nrptRule = "{706f646e-6574-4e52-8000-0000000000"
	// nrptDomains is how many domains a rule may have; Windows ignores one with
	// more (tailscale, net/dns/nrpt_windows.go).
	nrptDomains = 50
	// nrptGeneric makes a rule one of plain DNS servers (MS-GPNRPT 2.2.2.6).
	nrptGeneric = 8
	// maxRules is how many fit into two digits of a GUID.
	maxRules = 0x100
)

// regKey is a key of HKEY_LOCAL_MACHINE with its values: string, []string or
// uint32. Without values it is to be removed.
type regKey struct {
	path   string
	values map[string]any
}

// planNRPT is what to change in the registry. have are the names of the rules
// that are there: our own go when they are not wanted, and are ours by their name
// alone, so that whoever was killed has left nothing that is not found. The rules
// go where Windows will read them.
func planNRPT(local, policy []string, want []Config) []regKey {
	at, surplus := nrptLocal, nrptPolicy
	if slices.ContainsFunc(policy, func(name string) bool { return !isOurRule(name) }) {
		at, surplus = nrptPolicy, nrptLocal
	}
	var out []regKey
	written := map[string]bool{}
	for _, rule := range nrptRules(want) {
		name := fmt.Sprintf("%s%02x}", nrptRule, len(written))
		written[name] = true
		out = append(out, regKey{at + `\` + name, rule})
	}
	for path, have := range map[string][]string{nrptLocal: local, nrptPolicy: policy} {
		for _, name := range have {
			if isOurRule(name) && (path == surplus || !written[strings.ToLower(name)]) {
				out = append(out, regKey{path: path + `\` + name})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b regKey) int {
		return cmp.Or(removalsLast(a.values == nil, b.values == nil), strings.Compare(a.path, b.path))
	})
	return out
}

func isOurRule(name string) bool { return strings.HasPrefix(strings.ToLower(name), nrptRule) }

// nrptRules are the values of one rule after the other. A domain is the first
// one's that wants it. The leading dot means all names below, and itself.
func nrptRules(want []Config) []map[string]any {
	var rules []map[string]any
	seen := map[string]bool{}
	for _, c := range want {
		var servers, domains []string
		for _, a := range c.Servers {
			servers = append(servers, a.String())
		}
		for _, d := range c.MatchDomains {
			if d = strings.Trim(strings.ToLower(d), "."); d != "" && !seen[d] {
				seen[d] = true
				domains = append(domains, "."+d)
			}
		}
		for some := range slices.Chunk(domains, nrptDomains) {
			if len(rules) == maxRules {
				return rules
			}
			rules = append(rules, map[string]any{
				"Version": uint32(1), "ConfigOptions": uint32(nrptGeneric),
				"Name": some, "GenericDNSServers": strings.Join(servers, "; "),
			})
		}
	}
	return rules
}

func (k regKey) String() string {
	if k.values == nil {
		return "remove " + k.path + "\n"
	}
	text := "write " + k.path + "\n"
	var names []string
	for name := range k.values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		text += fmt.Sprintf("  %s = %v\n", name, k.values[name])
	}
	return text
}

// registry is what nrpt needs of Windows.
type registry interface {
	// Keys are the names of the keys below one; none where that one is not there.
	Keys(path string) ([]string, error)
	// Apply writes a key, or removes it.
	Apply(k regKey) error
	// SetSearch gives an interface its search domains.
	SetSearch(link string, domains []string) error
	// Servers are those of all interfaces but some.
	Servers(without []string) ([]netip.Addr, error)
	// Refresh has Windows read it all again, and forget what it has heard.
	Refresh(ctx context.Context) error
}

// nrpt is the Manager for Windows. Its rules need no journal: their names say
// whose they are. Search domains are the interface's and go with it.
type nrpt struct {
	reg registry
	log *slog.Logger

	mu     sync.Mutex
	want   []Config
	closed bool
}

var _ Manager = (*nrpt)(nil)

func (n *nrpt) Mode() string { return ModeNRPT }

func (n *nrpt) Set(ctx context.Context, want []Config) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := check(n.closed, want); err != nil {
		return err
	}
	if len(want) > 0 && slices.EqualFunc(want, n.want, Config.Equal) {
		return nil
	}
	return n.setLocked(ctx, want)
}

func (n *nrpt) setLocked(ctx context.Context, want []Config) error {
	local, err := n.reg.Keys(nrptLocal)
	policy, err2 := n.reg.Keys(nrptPolicy)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("set dns: %w", err)
	}
	plan := planNRPT(local, policy, want)
	for _, k := range plan {
		if err := n.reg.Apply(k); err != nil {
			return fmt.Errorf("set dns: %w", err)
		}
	}
	for i, c := range want {
		domains := c.SearchDomains
		if i > 0 { // short names are the first one's
			domains = nil
		}
		if err := n.reg.SetSearch(c.Link, domains); err != nil {
			return fmt.Errorf("set dns: %w", err)
		}
	}
	n.want = want
	if len(plan) == 0 {
		return nil
	}
	if err := n.reg.Refresh(ctx); err != nil {
		n.log.Warn("the system's cache of names was not emptied", "err", err)
	}
	return nil
}

func (n *nrpt) Base() []netip.AddrPort {
	n.mu.Lock()
	var links []string
	for _, c := range n.want {
		links = append(links, c.Link)
	}
	own := serversOf(n.want)
	n.mu.Unlock()
	servers, err := n.reg.Servers(links)
	if err != nil {
		n.log.Warn("base resolvers not known", "err", err)
	}
	return outside(slices.DeleteFunc(slices.Clone(servers), isPlaceholder), own)
}

// isPlaceholder says whether a is one of the three site-local addresses that
// Windows lists for an interface without an IPv6 server (fec0:0:0:ffff::1 to 3).
func isPlaceholder(a netip.Addr) bool {
	return netip.MustParsePrefix("fec0:0:0:ffff::/64").Contains(a.WithZone(""))
}

func (n *nrpt) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	return n.setLocked(context.Background(), nil)
}
