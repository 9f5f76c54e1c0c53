package peercred

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is how many groups a process may have (NGROUPS_MAX, limits.h).
const maxGroups = 65536

func behind(fd int) (Credentials, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	who := Credentials{UID: int(cred.Uid), PID: int(cred.Pid), Groups: []int{int(cred.Gid)}}
	groups, err := peerGroups(fd)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) { // before Linux 4.13
		return who, err
	}
	for _, g := range groups {
		who.Groups = append(who.Groups, int(g))
	}
	return who, nil
}

// peerGroups is SO_PEERGROUPS, which golang.org/x/sys has no call for.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && len(groups) < maxGroups:
			groups = make([]uint32, maxGroups)
		default:
			return nil, errno
		}
	}
}
