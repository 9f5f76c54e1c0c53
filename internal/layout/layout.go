// Package layout holds no code: its test keeps the imports of the whole
// repository in the order that docs/architecture.md draws.
package layout
