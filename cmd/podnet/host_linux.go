package main

import "podnet.dev/client/sandbox"

// mayChangeNetwork says whether this process can do without podnet-helper.
func mayChangeNetwork() bool { return sandbox.MayTUN() }
