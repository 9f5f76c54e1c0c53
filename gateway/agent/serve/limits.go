package serve

import (
	"sync"
	"sync/atomic"
)

// limits counts what each rule has with its laptop. The zero limits are ready.
type limits struct {
	mu   sync.Mutex
	open map[string]int // by rule
}

// take reports whether the rule may have one more, which give then gives back.
func (l *limits) take(rule string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[rule] >= MaxLaptop {
		return false
	}
	if l.open == nil {
		l.open = map[string]int{}
	}
	l.open[rule]++
	return true
}

func (l *limits) give(rule string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[rule]--; l.open[rule] == 0 {
		delete(l.open, rule)
	}
}

// budget is a number of bytes that all who share it may keep.
type budget struct{ left atomic.Int64 }

func (b *budget) take(n int) bool {
	if b.left.Add(-int64(n)) >= 0 {
		return true
	}
	b.give(n)
	return false
}

func (b *budget) give(n int) { b.left.Add(int64(n)) }
