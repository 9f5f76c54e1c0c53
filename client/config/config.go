// Package config is podnet's configuration: files of YAML, read strictly, and
// merged by how near they are to what the user does. It is about bytes and names of
// files; which flags there are is told by whoever has them.
package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"podnet.dev/client/localapi"
)

// Kind stands in every file, beside localapi.APIVersion.
const Kind = "Config"

// Place is where something was said. The zero Place is nowhere: a built-in default.
type Place struct {
	File string
	Line int // from 1
}

func (p Place) String() string {
	if p.File == "" {
		return "default"
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Error is what is wrong with a file, and where.
type Error struct {
	Place
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Place, e.Text) }

// Code and Hint are for httpjson.FromError.
func (e *Error) Code() string { return localapi.CodeUsage }
func (e *Error) Hint() string { return "podnet config --help says what a file may hold" }

// Default is what a flag is when neither the command line nor its variable says
// anything.
type Default struct {
	// Values are one for most flags, and any number for those that may be repeated.
	Values []string
	From   Place
}

// Profile is one with where it was said.
type Profile struct {
	localapi.Profile
	From Place
}

// Tray is what the tray heeds.
type Tray struct {
	// Notify says whether it tells on the desktop what happens; true by default.
	Notify     bool
	NotifyFrom Place
}

// Config is what all files say together.
type Config struct {
	// Defaults by the names of their flags.
	Defaults map[string]Default
	Profiles []Profile // by name
	Tray     Tray
}

// Flag is the one value that a flag defaults to; "" unless some file says.
func (c Config) Flag(name string) string {
	if d := c.Defaults[name]; len(d.Values) == 1 {
		return d.Values[0]
	}
	return ""
}

// Profile is the one of a name.
func (c Config) Profile(name string) (localapi.Profile, bool) {
	for _, p := range c.Profiles {
		if p.Name == name {
			return p.Profile, true
		}
	}
	return localapi.Profile{}, false
}

// merge makes one of files, of which the first that says something is heeded. A
// profile is taken whole.
func merge(files []*file) Config {
	c := Config{Defaults: map[string]Default{}, Tray: Tray{Notify: true}}
	profiles := map[string]Profile{}
	for _, f := range slices.Backward(files) {
		for name, v := range f.Defaults {
			c.Defaults[name] = Default{v.Values, Place{f.name, v.Line}}
		}
		for _, p := range f.Profiles {
			profiles[p.Name] = Profile{p.Profile, Place{f.name, p.Line}}
		}
		if f.Tray.Notify != nil {
			c.Tray = Tray{*f.Tray.Notify, Place{f.name, f.Tray.Line}}
		}
	}
	c.Profiles = slices.SortedFunc(maps.Values(profiles), func(a, b Profile) int { return cmp.Compare(a.Name, b.Name) })
	return c
}
