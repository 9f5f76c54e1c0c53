package main

import (
	"bytes"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands and limits of linux/ethtool.h.
const (
	ethtoolGetStrings  = 0x1b
	ethtoolGetSets     = 0x37
	ethtoolSetFeatures = 0x3b
	featureStrings     = 4 // ETH_SS_FEATURES
	stringLength       = 32
	maxFeatures        = 256
)

type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// setFeature does what "ethtool -K link feature on|off" does.
func setFeature(link, feature string, on bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	call := func(data unsafe.Pointer) error {
		r := ifreq{data: data}
		copy(r.name[:unix.IFNAMSIZ-1], link)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); e != 0 {
			return fmt.Errorf("set feature %s of %s: %w", feature, link, e)
		}
		return nil
	}
	sets := struct {
		cmd, reserved uint32
		mask          uint64
		count         uint32
	}{cmd: ethtoolGetSets, mask: 1 << featureStrings}
	if err := call(unsafe.Pointer(&sets)); err != nil {
		return err
	}
	names := struct {
		cmd, set, count uint32
		data            [maxFeatures * stringLength]byte
	}{cmd: ethtoolGetStrings, set: featureStrings, count: min(sets.count, maxFeatures)}
	if err := call(unsafe.Pointer(&names)); err != nil {
		return err
	}
	for i := range int(names.count) {
		name, _, _ := bytes.Cut(names.data[i*stringLength:(i+1)*stringLength], []byte{0})
		if string(name) != feature {
			continue
		}
		want := struct {
			cmd, size uint32
			blocks    [maxFeatures / 32]struct{ valid, requested uint32 }
		}{cmd: ethtoolSetFeatures, size: (names.count + 31) / 32}
		want.blocks[i/32].valid = 1 << (i % 32)
		if on {
			want.blocks[i/32].requested = 1 << (i % 32)
		}
		return call(unsafe.Pointer(&want))
	}
	return fmt.Errorf("set feature %s of %s: no such feature", feature, link)
}
