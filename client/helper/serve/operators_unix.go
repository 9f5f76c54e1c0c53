//go:build unix

package serve

import (
	"errors"
	"os"
	"syscall"
)

// trusted says whether nobody but root, or whoever runs this, could have written
// the file.
func trusted(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != 0 && int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return errors.New("others than root may write it: chown root, chmod go-w")
	}
	return nil
}
