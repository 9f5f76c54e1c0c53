package session

import "os"

// alive says whether there is a process pid.
func alive(pid int) bool {
	p, err := os.FindProcess(pid) // opens a handle, so it fails for none
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
