package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"podnet.dev/deploy/image/oci"
)

// images makes those of the gateway and the agent, each a file that docker load and
// ctr images import take, under the name that podnet install takes unless told otherwise.
func (o options) images(t target) error {
	version := strings.ReplaceAll(o.version, "+", "_") // no tag may have it
	for _, name := range inCluster {
		spec := oci.FromBinary("podnet.dev/"+strings.TrimPrefix(name, "podnet-")+":"+version, o.program(t, name))
		spec.Arch = t.arch
		if err := oci.WriteFile(filepath.Join(o.out, fmt.Sprintf("%s-image_%s_%s.tar", name, release(o.version), t)), spec); err != nil {
			return err
		}
	}
	return nil
}
