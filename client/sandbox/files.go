package sandbox

import (
	"net/netip"
	"strings"
)

// resolvConf is as a kubelet writes it (pkg/kubelet/network/dns), for a name server and
// search domains.
func resolvConf(server netip.Addr, search []string) string {
	var b strings.Builder
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	b.WriteString("nameserver " + server.String() + "\n")
	b.WriteString("options ndots:5\n")
	return b.String()
}

// nsswitch is a host's nsswitch.conf with no other way to a host's address than files
// and DNS: the others ask daemons that know nothing of the sandbox.
func nsswitch(hosts string) string {
	const ours = "hosts: files dns"
	var out []string
	done := false
	for line := range strings.Lines(hosts) {
		line = strings.TrimRight(line, "\n")
		if database, _, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(database) == "hosts" {
			if done {
				continue
			}
			line, done = ours, true
		}
		out = append(out, line)
	}
	if !done {
		out = append(out, ours)
	}
	return strings.Join(out, "\n") + "\n"
}

// hostsFile is a host's /etc/hosts with the name of the host itself, as it is called
// inside.
func hostsFile(hosts string) string {
	if hosts != "" && !strings.HasSuffix(hosts, "\n") {
		hosts += "\n"
	}
	return hosts + Host.String() + " " + HostName + "\n"
}
