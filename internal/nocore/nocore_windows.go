package nocore

// forbid does nothing: Windows keeps a process's memory only where an administrator has
// asked for that (WER LocalDumps).
func forbid() error { return nil }
