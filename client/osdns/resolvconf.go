package osdns

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
)

// marker is the first line of a resolv.conf that is ours.
const marker = "# podnet wrote this file; disconnecting puts back the one it replaced."

// saved begins a line of the file that ours replaced. The journal knows the
// whole of it; these lines help a person, and us when the journal is lost.
const saved = "# was: "

// maxNameservers is how many nameserver lines resolvers read (MAXNS).
const maxNameservers = 3

// resolvConf is what a resolv.conf says, as far as it concerns us.
type resolvConf struct {
	servers []netip.Addr
	search  []string
}

// parseResolvConf reads as resolv.conf(5) says: keywords begin a line, the
// last of search and domain counts, and what nobody understands is skipped.
func parseResolvConf(b []byte) resolvConf {
	var rc resolvConf
	for line := range strings.Lines(string(b)) {
		keyword, values := splitLine(line)
		switch keyword {
		case "nameserver":
			if len(values) > 0 {
				if a, err := netip.ParseAddr(values[0]); err == nil {
					rc.servers = append(rc.servers, a)
				}
			}
		case "search":
			rc.search = values
		case "domain":
			rc.search = values[:min(len(values), 1)]
		}
	}
	return rc
}

// splitLine takes a line apart. The keyword is "" for comments and blanks.
func splitLine(line string) (keyword string, values []string) {
	line = strings.TrimRight(line, "\r\n")
	if line == "" || line[0] == '#' || line[0] == ';' {
		return "", nil
	}
	f := strings.Fields(line)
	if len(f) == 0 {
		return "", nil
	}
	for i, v := range f {
		if v[0] == '#' || v[0] == ';' { // a comment behind the values
			f = f[:i]
			break
		}
	}
	if len(f) == 0 {
		return "", nil
	}
	return f[0], f[1:]
}

// planResolvConf is the file that sends every name to want's server: its
// nameserver line instead of original's, its search domains before
// original's, and every other line (options, sortlist, remarks) as it was.
func planResolvConf(original []byte, want Config) []byte {
	had := parseResolvConf(original)
	var b bytes.Buffer
	b.WriteString(marker + "\n")
	var kept bytes.Buffer
	for line := range strings.Lines(string(original)) {
		line = strings.TrimRight(line, "\r\n")
		switch keyword, _ := splitLine(line); keyword {
		case "nameserver", "search", "domain":
			b.WriteString(saved + line + "\n")
		default:
			kept.WriteString(line + "\n")
		}
	}
	b.WriteString("nameserver " + oneServer(want).String() + "\n")
	if search := mergeSearch(want.SearchDomains, had.search); len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	b.Write(kept.Bytes())
	return b.Bytes()
}

// oneServer is the one of want's servers that a file names: all of them are one
// proxy, and musl asks every server that it reads of at the same time.
func oneServer(want Config) netip.Addr { return want.Servers[0] }

func mergeSearch(ours, theirs []string) []string {
	var out []string
	for _, d := range slices.Concat(ours, theirs) {
		if d != "." {
			d = strings.TrimSuffix(d, ".")
		}
		if d != "" && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// isOurs says whether a resolv.conf was written by podnet.
func isOurs(content []byte) bool { return bytes.HasPrefix(content, []byte(marker)) }

// recoverResolvConf makes of a file of ours the one that it replaced, as well
// as its own lines tell. It is for the day when the journal is gone.
func recoverResolvConf(ours []byte) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(string(ours)) {
		line = strings.TrimRight(line, "\r\n")
		if was, ok := strings.CutPrefix(line, saved); ok {
			b.WriteString(was + "\n")
			continue
		}
		switch keyword, _ := splitLine(line); {
		case line == marker, keyword == "nameserver", keyword == "search":
		default:
			b.WriteString(line + "\n")
		}
	}
	return b.Bytes()
}

// baseServers are the resolvers that content names, without own. A file that
// names none means the resolver of this machine (resolv.conf(5)).
func baseServers(content []byte, own []netip.Addr) []netip.AddrPort {
	servers := parseResolvConf(content).servers
	out := outside(servers, own)
	if len(servers) == 0 {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53))
	}
	return out
}
