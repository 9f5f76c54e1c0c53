// Package layout holds no code: its tests keep the imports of the whole
// repository in the order that docs/architecture.md draws, and its folders and
// decisions known to docs.
package layout
