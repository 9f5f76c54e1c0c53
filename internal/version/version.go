// Package version says which podnet this is.
package version

import "golang.org/x/mod/semver"

// Version is the release, set at link time with -X; "dev" in a plain build.
var Version = "dev"

// Skewed reports whether two versions are too far apart to promise that what one of
// them does the other knows: releases that differ by more than a patch, and others
// that differ at all.
func Skewed(a, b string) bool {
	a, b = canonical(a), canonical(b)
	if semver.IsValid(a) && semver.IsValid(b) {
		return semver.MajorMinor(a) != semver.MajorMinor(b)
	}
	return a != b
}

// canonical is a version with the v that package semver wants.
func canonical(s string) string {
	if s != "" && s[0] != 'v' {
		s = "v" + s
	}
	return s
}
