package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
)

// browse has the desktop open a URL.
func browse(url string) error {
	switch runtime.GOOS {
	case "darwin":
		return exec.Command("open", url).Start()
	case "windows":
		return exec.Command("rundll32", "url.dll,FileProtocolHandler", url).Start()
	}
	switch {
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return errors.New("no desktop here")
	case os.Geteuid() == 0:
		return errors.New("the browser is not root's")
	}
	return exec.Command("xdg-open", url).Start()
}
