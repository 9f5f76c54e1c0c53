// Package browse opens pages in the user's browser.
package browse

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
)

// Open has the desktop open a URL, and does not wait until somebody closes it.
func Open(url string) error {
	var cmd *exec.Cmd
	switch {
	case runtime.GOOS == "darwin":
		cmd = exec.Command("open", url)
	case runtime.GOOS == "windows":
		cmd = exec.Command("rundll32", "url.dll,FileProtocolHandler", url)
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return errors.New("no desktop here")
	case os.Geteuid() == 0:
		return errors.New("the browser is not root's")
	default:
		cmd = exec.Command("xdg-open", url)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // which may be when the browser ends
	return nil
}
