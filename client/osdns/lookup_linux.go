package osdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func lookUp(ctx context.Context, opts Options, name string) []Way {
	addrs, err := lookUpFile(ctx, opts.ResolvConf, name)
	ways := []Way{{"programs that read " + opts.ResolvConf, addrs, err}}
	if addrs, err = lookUpLibrary(ctx, name); !errors.Is(err, errors.ErrUnsupported) {
		ways = append(ways, Way{"programs that use the C library", addrs, err})
	}
	return ways
}

// lookUpFile asks the servers of resolv.conf as it is now, in their order, until
// one answers: programs without the C library do so. (Go's own resolver would
// do, but it looks at the file every five seconds only.)
func lookUpFile(ctx context.Context, path, name string) ([]netip.Addr, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	servers := parseResolvConf(content).servers
	if len(servers) == 0 {
		return nil, fmt.Errorf("%s names no server", path)
	}
	var errs []error
	for _, server := range servers[:min(len(servers), maxNameservers)] {
		r := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
		}}
		addrs, err := r.LookupNetIP(ctx, "ip4", name)
		var answer *net.DNSError
		switch {
		case err == nil:
			return addrs, nil
		case errors.As(err, &answer) && answer.IsNotFound:
			return nil, fmt.Errorf("%s knows no such name", server)
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// lookUpLibrary asks the C library, by the program that comes with it, since
// podnet is linked with none. errors.ErrUnsupported: there is no such program.
func lookUpLibrary(ctx context.Context, name string) ([]netip.Addr, error) {
	getent, err := exec.LookPath("getent")
	if err != nil {
		return nil, errors.ErrUnsupported
	}
	out, err := exec.CommandContext(ctx, getent, "ahostsv4", name).Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
	case errors.As(err, &exit) && exit.ExitCode() == 2: // man 1 getent
		return nil, errors.New("no such name")
	case err != nil:
		return nil, fmt.Errorf("getent: %w", err)
	}
	return parseGetent(string(out)), nil
}

// parseGetent reads lines that begin with an address; each comes once per type
// of socket.
func parseGetent(out string) []netip.Addr {
	var all []netip.Addr
	for line := range strings.Lines(out) {
		text, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
