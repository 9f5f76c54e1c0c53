// Command lab boots a real Kubernetes, two laptops and a router on this
// computer, for podnet's tests, its demo and for playing. "lab help" says more.
package main

import (
	"os"

	"podnet.dev/e2e/lab/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
