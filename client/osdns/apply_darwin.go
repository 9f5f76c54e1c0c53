package osdns

import (
	"context"
	"errors"
	"os/exec"
)

func newManager(ctx context.Context, opts Options) (Manager, error) {
	if err := cleanup(ctx, opts); err != nil {
		return nil, err
	}
	return openResolverDir(opts), nil
}

func openResolverDir(opts Options) *resolverDir {
	return &resolverDir{opts: opts, log: opts.Log, dir: resolverPath(opts), flush: flushNames}
}

// flushNames empties the caches of macOS' two resolvers.
func flushNames(ctx context.Context) error {
	return errors.Join(
		exec.CommandContext(ctx, "/usr/bin/dscacheutil", "-flushcache").Run(),
		exec.CommandContext(ctx, "/usr/bin/killall", "-HUP", "mDNSResponder").Run(),
	)
}

// cleanup removes the files that say that they are ours.
func cleanup(ctx context.Context, opts Options) error { return openResolverDir(opts).Set(ctx, nil) }

func syncDir(string) error { return nil }
