package peercred

import "golang.org/x/sys/unix"

func behind(fd int) (Credentials, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Credentials{}, err
	}
	who := Credentials{UID: int(cred.Uid)}
	for _, g := range cred.Groups[:min(int(cred.Ngroups), len(cred.Groups))] {
		who.Groups = append(who.Groups, int(g))
	}
	return who, nil
}
