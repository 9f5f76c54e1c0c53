// Podnet-helper is the half of podnet that may change this machine's network.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "error: podnet-helper does nothing on Windows yet")
	os.Exit(1)
}
