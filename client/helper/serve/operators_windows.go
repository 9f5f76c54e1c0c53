package serve

import "os"

// trusted leaves it to the access list of the file's folder.
func trusted(*os.File) error { return nil }
