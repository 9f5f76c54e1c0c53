// Package systemd holds the units that run podnet-helper. Packages install the
// files as they are; podnet setup has them name the place where it puts the program.
package systemd

import (
	"embed"
	"strings"
)

// Program is where the units find podnet-helper.
const Program = "/usr/libexec/podnet-helper"

// Socket, Service and Cleanup are the units' names. Socket and Cleanup are to be
// enabled; Service comes with the first connection.
const (
	Socket  = "podnet-helper.socket"
	Service = "podnet-helper.service"
	Cleanup = "podnet-helper-cleanup.service"
)

//go:embed *.socket *.service
var files embed.FS

// Units are the files by their names, for a podnet-helper at program.
func Units(program string) map[string]string {
	all := map[string]string{}
	for _, name := range []string{Socket, Service, Cleanup} {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // embedded by the lines above
		}
		all[name] = strings.ReplaceAll(string(text), Program, program)
	}
	return all
}
