//go:build !linux

package resident

func letGo() {}
