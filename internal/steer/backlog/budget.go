// Package backlog bounds what copies of traffic cost: the connections of a pod are
// many, and each keeps what a slow laptop has not taken yet.
package backlog

import (
	"sync/atomic"

	"podnet.dev/internal/steer"
)

// Budget is a number of bytes that may wait for laptops, of all connections that
// share it. A nil Budget has no end.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a Budget of n bytes.
func NewBudget(n int64) *Budget {
	b := new(Budget)
	b.left.Store(n)
	return b
}

// Take reports whether n bytes more may wait. Then Give has to follow.
func (b *Budget) Take(n int) bool {
	if b == nil || b.left.Add(-int64(n)) >= 0 {
		return true
	}
	b.Give(n)
	return false
}

// Give says that n bytes do not wait any more.
func (b *Budget) Give(n int) {
	if b != nil {
		b.left.Add(int64(n))
	}
}

// Outlet is a steer.Outlet of a connection that shares a Budget with others.
type Outlet interface {
	steer.Outlet
	Copies() *Budget
}

// Of returns the Budget of an Outlet; nil if it has none.
func Of(out steer.Outlet) *Budget {
	if o, ok := out.(Outlet); ok {
		return o.Copies()
	}
	return nil
}
