package serve

import "sync"

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
