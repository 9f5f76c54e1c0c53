//go:build !linux

package main

// mayChangeNetwork says whether this process can do without podnet-helper.
func mayChangeNetwork() bool { return false }
