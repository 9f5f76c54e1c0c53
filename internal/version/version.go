// Package version says which podnet this is.
package version

// Version is the release, set at link time with -X; "dev" in a plain build.
var Version = "dev"
