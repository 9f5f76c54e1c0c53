// Package nocore keeps a process's memory, with the keys that are in it, out of core
// files, and so off the disk. It is for programs that hold keys as long as they run.
package nocore

// Forbid has this process leave no core, however it ends. What it starts from then on
// is as its user wants it: a command may leave one.
//
// An error says that a core may be left; nothing else comes of it.
func Forbid() error { return forbid() }
