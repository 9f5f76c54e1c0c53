//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// podNetwork is everything that somebody may have changed in a pod's network, but for
// what the agent itself listens at while it lives.
func podNetwork(t testing.TB, ns string) string {
	t.Helper()
	var all strings.Builder
	for _, script := range []string{
		"nft list ruleset", "iptables-save; ip6tables-save",
		"ip -4 rule; ip -6 rule", "ip -4 route show table all", "ip -6 route show table all",
		"ip -o addr", "ip -o link", "ip -4 neigh show nud permanent; ip -6 neigh show nud permanent",
		// Some sysctls may only be written, and one counts.
		"grep -rs . /proc/sys/net | grep -v /nf_conntrack_count: | sort",
		"ss -Hlntuwp | grep -v podnet-agent | awk '{print $1, $5, $7}' | sort",
	} {
		fmt.Fprintf(&all, "# %s\n%s\n", script, node1.cmd("nsenter", "--net=/run/netns/"+ns, "sh", "-c", script).must(t))
	}
	return all.String()
}

// agentGone is nil when nothing of an agent is left in a pod's network.
func agentGone(t testing.TB, ns string) error {
	t.Helper()
	script := "ss -Hanptu | grep podnet-agent; for p in $(ip netns pids " + ns + "); do grep -H podnet-agent /proc/$p/comm; done; true"
	if left := node1.cmd("nsenter", "--net=/run/netns/"+ns, "sh", "-c", script).must(t); left != "" {
		return fmt.Errorf("left: %s", left)
	}
	return nil
}
