// Command lookup prints the addresses that a Go program gets for a name. Built
// with and without cgo it is two of the clients of the resolver story.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for _, a := range addrs {
		fmt.Println(a.Unmap())
	}
}
