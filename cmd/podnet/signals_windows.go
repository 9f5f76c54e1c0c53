package main

import "os"

// forwarded are the signals that a command is told of which we were sent.
var forwarded = []os.Signal{os.Interrupt}
