// Package autostart has the user's daemon start with the user's login. What that
// takes is a plan, which is the same on every machine; carrying it out writes one
// file in the user's home and tells the user's service manager. Nothing of it needs
// privilege.
package autostart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"podnet.dev/client/localapi"
)

// commandTime is how long a service manager may take to obey.
const commandTime = 20 * time.Second

// Machine is what a plan depends on.
type Machine struct {
	GOOS string
	Home string
	// ConfigHome is $XDG_CONFIG_HOME, or empty.
	ConfigHome string
	UID        int
	// Program is the podnet program. Path and Kubeconfig are the user's variables of
	// today: a login has fewer of them, and exec plugins are found by PATH.
	Program, Path, Kubeconfig string
}

// Plan is what it takes, and what undoes it.
type Plan struct {
	// File is to hold Text. Link, if there is one, is what the service manager makes
	// of it, or of a file of the same name that a package has brought.
	File, Text, Link string
	// On are the commands once the file is there, Off those before it goes, After
	// those after that.
	On, Off, After [][]string
	// Say tells the user what to know beside that.
	Say string
}

// unit is the file of the systemd user manager. The guard, which cleans up after a
// daemon that was killed, must not be killed with it.
const unit = `[Unit]
Description=podnet: this machine on the pod network of Kubernetes clusters

[Service]
ExecStart=%s daemon
%sRestart=on-failure
RestartSec=10s
KillMode=process

[Install]
WantedBy=default.target
`

// agent is that of launchd.
const agent = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>dev.podnet.daemon</string>
	<key>ProgramArguments</key>
	<array>
		<string>%s</string>
		<string>daemon</string>
	</array>
	<key>EnvironmentVariables</key>
	<dict>
%s	</dict>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ThrottleInterval</key>
	<integer>10</integer>
</dict>
</plist>
`

// PlanFor says what it takes on a machine.
func PlanFor(m Machine) (Plan, error) {
	variables := [][2]string{{"PATH", m.Path}, {"KUBECONFIG", m.Kubeconfig}}
	var env strings.Builder
	switch {
	case m.Home == "":
		return Plan{}, errors.New("there is no home folder")
	case m.GOOS == "linux":
		for _, v := range variables {
			if v[1] != "" {
				fmt.Fprintf(&env, "Environment=%s\n", systemdWord(v[0]+"="+v[1]))
			}
		}
		dir := m.ConfigHome
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(m.Home, ".config")
		}
		return Plan{
			File:  filepath.Join(dir, "systemd", "user", "podnet.service"),
			Text:  fmt.Sprintf(unit, systemdWord(m.Program), env.String()),
			On:    [][]string{{"systemctl", "--user", "daemon-reload"}, {"systemctl", "--user", "enable", "--now", "podnet.service"}},
			Off:   [][]string{{"systemctl", "--user", "disable", "--now", "podnet.service"}},
			After: [][]string{{"systemctl", "--user", "daemon-reload"}},
			Link:  filepath.Join(dir, "systemd", "user", "default.target.wants", "podnet.service"),
			Say:   "loginctl enable-linger starts it without a login, at boot",
		}, nil
	case m.GOOS == "darwin":
		for _, v := range variables {
			if v[1] != "" {
				fmt.Fprintf(&env, "\t\t<key>%s</key>\n\t\t<string>%s</string>\n", v[0], xmlText(v[1]))
			}
		}
		file := filepath.Join(m.Home, "Library", "LaunchAgents", "dev.podnet.daemon.plist")
		domain := fmt.Sprintf("gui/%d", m.UID)
		return Plan{
			File: file,
			Text: fmt.Sprintf(agent, xmlText(m.Program), env.String()),
			On:   [][]string{{"launchctl", "bootstrap", domain, file}},
			Off:  [][]string{{"launchctl", "bootout", domain + "/dev.podnet.daemon"}},
		}, nil
	}
	return Plan{}, fmt.Errorf("podnet does not know how a program starts with the login on %s: have it run podnet daemon", m.GOOS)
}

// systemdWord is one word of a unit's line: systemd.syntax(7) quotes as C does, and
// has % for itself.
func systemdWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, "\n", `\n`).Replace(s) + `"`
}

func xmlText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// Manager carries plans out.
type Manager struct {
	Machine Machine
	Run     func(ctx context.Context, args []string) error
}

// New is that of this machine and this user.
func New() Manager {
	exe, err := os.Executable()
	if err != nil {
		exe = "podnet"
	}
	home, _ := os.UserHomeDir() // a plan says that there is none
	return Manager{Machine{GOOS: runtime.GOOS, Home: home, ConfigHome: os.Getenv("XDG_CONFIG_HOME"), UID: os.Geteuid(), Program: exe,
		Path: os.Getenv("PATH"), Kubeconfig: os.Getenv("KUBECONFIG")}, run}
}

// Set has the daemon start with the login, now included, or no longer. It returns
// what the user should know.
func (m Manager) Set(ctx context.Context, on bool) (string, error) {
	p, err := m.plan()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	if !on {
		if !p.made() {
			return "", nil
		}
		for _, args := range p.Off {
			_ = m.Run(ctx, args) // it may not have been running, or its manager is not
		}
		for _, name := range []string{p.Link, p.File} {
			if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
				return "", err
			}
		}
		for _, args := range p.After {
			_ = m.Run(ctx, args)
		}
		return "", nil
	}
	was, _ := os.ReadFile(p.File) // a unit of before, or none
	if err := os.MkdirAll(filepath.Dir(p.File), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(p.File, []byte(p.Text), 0o644); err != nil {
		return "", err
	}
	for _, args := range p.On {
		if err := m.Run(ctx, args); err != nil {
			if was == nil { // who failed changes nothing
				err = errors.Join(err, os.Remove(p.File))
			}
			return "", &localapi.Error{Code: localapi.CodeDaemon, Message: "have the service manager start the daemon: " + err.Error(), Status: http.StatusBadGateway,
				Hint: "in a session without a service manager podnet connect starts the daemon by itself"}
		}
	}
	return p.Say, nil
}

// On says whether it is.
func (m Manager) On() (bool, error) {
	p, err := m.plan()
	if err != nil {
		return false, err
	}
	return p.made(), nil
}

// made says whether there is anything of it.
func (p Plan) made() bool {
	for _, name := range []string{p.File, p.Link} {
		if _, err := os.Lstat(name); err == nil { // "" is nowhere
			return true
		}
	}
	return false
}

func (m Manager) plan() (Plan, error) {
	if m.Machine.UID == 0 && os.Getenv("SUDO_UID") != "" {
		return Plan{}, &localapi.Error{Code: localapi.CodeUsage, Message: "this is about a user's own daemon", Hint: "podnet autostart without sudo", Status: http.StatusBadRequest}
	}
	p, err := PlanFor(m.Machine)
	if err != nil {
		return p, &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "podnet connect starts the daemon by itself", Status: http.StatusBadRequest}
	}
	return p, nil
}

// run runs a command and says why it failed in its own words.
func run(ctx context.Context, args []string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
