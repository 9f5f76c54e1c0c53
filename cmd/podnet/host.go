package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"podnet.dev/client/cli"
	"podnet.dev/client/helper"
	"podnet.dev/client/helper/remote"
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/setup"
)

// opener chooses who changes this machine's network: this process where it may,
// else podnet-helper.
func opener(host *helper.Host) func(context.Context, func(string)) (helper.Session, error) {
	return func(ctx context.Context, warn func(string)) (helper.Session, error) {
		if os.Geteuid() == 0 {
			return host.Open(ctx, warn)
		}
		s, err := remote.Open(ctx, wire.Socket(), warn)
		var none *remote.NoHelperError
		switch {
		case !errors.As(err, &none):
			return s, err
		case mayChangeNetwork():
			return host.Open(ctx, warn)
		}
		// As text: that a socket is not there says nothing of TUN devices.
		return nil, &helper.PrivilegeError{Err: fmt.Errorf("this user is not root, and %v", none)}
	}
}

// setUp installs podnet-helper or removes it.
func setUp(ctx context.Context, o cli.SetupOptions, say func(string)) error {
	opts := setup.Options{Program: o.Program, Prefix: o.Prefix, Operators: o.Operators, Say: say}
	opts.Answers = func(ctx context.Context) error {
		_, _, err := remote.Look(ctx, wire.Socket())
		return err
	}
	if o.Remove {
		return setup.Remove(ctx, opts)
	}
	if opts.Program == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the podnet program: %w", err)
		}
		beside := filepath.Join(filepath.Dir(exe), "podnet-helper")
		if _, err := os.Stat(beside); err == nil || !opts.Packaged() {
			opts.Program = beside
		}
	}
	if caller := os.Getenv("SUDO_USER"); len(opts.Operators) == 0 && caller != "" && caller != "root" {
		opts.Operators = []string{caller}
	}
	return setup.Install(ctx, opts)
}
