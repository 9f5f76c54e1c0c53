package redirect

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// owned is what nft lists of the owner of a table.
var owned = regexp.MustCompile(` # progname [^\n]*|\n\tflags owner\n`)

// golden is the file with the table of the story's way.
func golden(t *testing.T) string { return "testdata/" + way(t) + ".nft" }

// TestGolden: but for its owner, the table is the one that nft makes of a file in
// testdata.
func TestGolden(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		nft(t, "-f", golden(t))
		want, code := nft(t, "list", "ruleset"), bytecode(t)
		nft(t, "flush", "ruleset")
		table, err := openBy(way(t), "golden")
		if err != nil {
			t.Fatal(err)
		}
		set(t, table, both[:1])
		if n := strings.Count(nft(t, "list", "ruleset"), "chain udp_"); n != 0 {
			t.Errorf("%d chains for UDP, of which no port is steered", n)
		}
		set(t, table, both)
		set(t, table, nil)
		if got := owned.ReplaceAllString(nft(t, "list", "ruleset"), ""); got != want {
			t.Errorf("the kernel has\n%s\nwant\n%s", got, want)
		}
		if got := bytecode(t); got != code {
			t.Errorf("the kernel runs\n%s\nwant\n%s", got, code)
		}
		set(t, table, append(both, Port{TCP, 9000, agentPort}))
		expires := regexp.MustCompile(` expires [0-9a-z]+`)
		for name, want := range map[string][]string{
			"tcp_redir": {"8080 : 15001", "9000 : 15001"}, "udp_redir": {"8080 : 15001"}, "udp_steered": {"8080"},
			"tcp_agent": {"15001"}, "udp_agent": {"15001"},
		} {
			kind := "set"
			if strings.HasSuffix(name, "redir") {
				kind = "map"
			}
			got := nft(t, "list", kind, "inet", "podnet_golden", name)
			_, elements, _ := strings.Cut(got, "elements = {")
			if n := len(expires.FindAllString(elements, -1)); n != len(want) {
				t.Errorf("%s: %d elements expire, want %d: %s", name, n, len(want), got)
			}
			for _, w := range want {
				if !strings.Contains(expires.ReplaceAllString(elements, ""), w) {
					t.Errorf("%s has no %s: %s", name, w, got)
				}
			}
		}
	})
}

// bytecode is what the rules are to the kernel: nft lists not all of each.
func bytecode(t *testing.T) string {
	t.Helper()
	return strings.Join(regexp.MustCompile(`(?m)^  \[.*$`).FindAllString(nft(t, "--debug=netlink", "list", "ruleset"), -1), "\n")
}

// foreign is what a mesh and a firewall may have in a pod, with a map whose name
// is ours.
const foreign = `
table ip nat {
	map tcp_redir { type inet_service : inet_service; elements = { 1 : 2 }; }
	chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 1234 redirect to :15006; }
	chain OUTPUT { type nat hook output priority -100; tcp dport 1234 redirect to :15006; }
}
table inet podnet_other {
	set tcp_agent { type inet_service; elements = { 15002 }; }
	chain guard { type filter hook input priority filter; tcp dport @tcp_agent counter drop; }
}
table inet filter {
	chain input { type filter hook input priority filter; policy accept; ct state established accept; tcp dport 25 drop; }
}
`

func TestNothingElseChanges(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "foreign.nft")
		if err := os.WriteFile(file, []byte(foreign), 0o600); err != nil {
			t.Fatal(err)
		}
		nft(t, "-f", file)
		before, knobs := nft(t, "list", "ruleset"), sysctls(t)
		own := regexp.MustCompile(`(?ms)^table inet podnet_test \{[^\n]*\n.*?^\}\n`)
		same := func(when string) {
			t.Helper()
			got := nft(t, "list", "ruleset")
			if others := own.ReplaceAllString(got, ""); others != before {
				t.Errorf("%s:\n%s\nbefore:\n%s", when, others, before)
			}
			if n := len(own.FindAllString(got, -1)); (n == 0) != (when == "after") {
				t.Errorf("%s: %d tables of ours", when, n)
			}
		}
		table := openTable(t)
		same("open")
		for range 3 {
			set(t, table, both)
			same("set")
		}
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
		same("after")
		for name, value := range sysctls(t) {
			if was, ok := knobs[name]; ok && was != value {
				t.Errorf("%s is %q, was %q", name, value, was)
			}
		}
	})
}

// sysctls reads what this namespace has of them, but for what counts.
func sysctls(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_count") {
			return nil
		}
		if b, err := os.ReadFile(path); err == nil {
			all[path] = string(b)
		}
		return nil
	})
	if err != nil || len(all) < 100 {
		t.Fatalf("%d sysctls: %v", len(all), err)
	}
	return all
}
