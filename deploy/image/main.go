// Command image puts static binaries into a container image, as a tarball that
// "docker load" and "ctr images import" take. Equal binaries give equal bytes.
//
//	image -o bin/podnet-gateway.tar -name podnet.dev/gateway:dev bin/podnet-gateway
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"podnet.dev/deploy/image/oci"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("image", flag.ExitOnError)
	out := flags.String("o", "", "write the image to this `FILE`")
	name := flags.String("name", "", "the image's `NAME`, with its tag")
	user := flags.String("user", oci.NonRoot, "run as this `UID:GID`")
	arch := flags.String("arch", "amd64", "the binaries' `GOARCH`")
	labels := map[string]string{}
	flags.Func("label", "add a label, `KEY=VALUE` (repeatable)", func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q is not KEY=VALUE", s)
		}
		labels[key] = value
		return nil
	})
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: image -o FILE -name NAME [flags] BINARY...\nThe first binary is the entrypoint.")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args) // ExitOnError
	if *out == "" || *name == "" || flags.NArg() == 0 {
		flags.Usage()
		return fmt.Errorf("-o, -name and a binary are needed")
	}
	spec := oci.FromBinary(*name, flags.Arg(0))
	for _, binary := range flags.Args()[1:] {
		spec.Files["/"+filepath.Base(binary)] = binary
	}
	spec.User, spec.Arch, spec.Labels = *user, *arch, labels
	return oci.WriteFile(*out, spec)
}
