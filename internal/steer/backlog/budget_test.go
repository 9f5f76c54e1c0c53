package backlog

import (
	"testing"

	"podnet.dev/internal/steer"
)

func TestBudget(t *testing.T) {
	b := NewBudget(10)
	if !b.Take(6) || b.Take(5) || !b.Take(4) || b.Take(1) {
		t.Error("ten bytes are not ten bytes")
	}
	b.Give(6)
	if b.Take(7) || !b.Take(6) {
		t.Error("what was given back is not there, or more")
	}
}

type outlet struct {
	steer.Outlet
	copies *Budget
}

func (o outlet) Copies() *Budget { return o.copies }

func TestOf(t *testing.T) {
	want := NewBudget(1)
	if got := Of(outlet{copies: want}); got != want {
		t.Error("not the one that the outlet has")
	}
	none := Of(struct{ steer.Outlet }{})
	if !none.Take(1 << 40) {
		t.Error("no budget has an end")
	}
	none.Give(1 << 40)
}
