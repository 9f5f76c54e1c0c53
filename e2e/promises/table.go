package main

import "slices"

// promises are all statements, in the order of their numbers. What is added to
// them takes the next number, in the section where readers would look for it.
var promises = []section{identity, isolation, laptop, gateway, steering, supply}

// both puts tests of several folders together.
func both(groups ...[]test) []test { return slices.Concat(groups...) }
