package agent

import (
	"context"
	"testing"
	"time"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/control"
)

// A name may come back with another rule behind it before the agent has heard that it
// was gone: what is open with a laptop for the one before is not for the new one.
func TestNameComesBack(t *testing.T) {
	old := ruleOf("web", laptopA, 1)
	same, moved, later, owned := old, old, old, old
	same.Mode, moved.Laptop = steer.Mirror, laptopB
	later.Since = time.Unix(2, 0)
	owned.Owner = "bob"
	for name, c := range map[string]struct {
		rule control.Rule
		ends bool
	}{
		"the same": {same, false}, "at another laptop": {moved, true}, "made anew": {later, true}, "of another owner": {owned, true},
	} {
		w := &worker{seen: newObserver(), ends: map[*tied]struct{}{}}
		if err := w.put([]control.Rule{old}); err != nil {
			t.Fatal(err)
		}
		ended := false
		forget, ok := w.tie(old, func() { ended = true })
		if !ok {
			t.Fatal("not in force")
		}
		if err := w.put([]control.Rule{c.rule}); err != nil {
			t.Fatal(err)
		}
		if ended != c.ends {
			t.Errorf("a rule of that name, %s: what is open ended %v", name, ended)
		}
		forget()
		if len(w.ends) > 0 {
			t.Error("what was forgotten is there")
		}
		if _, ok := w.tie(old, func() {}); ok == c.ends {
			t.Errorf("a rule of that name, %s: the old one is in force %v", name, ok)
		}
	}
}

// What was decided by a rule that is gone goes to nobody, and is told to nobody, by the
// rule that has its name now.
func TestDecidedByOneThatIsGone(t *testing.T) {
	old, now := ruleOf("web", laptopA, 1), ruleOf("web", laptopB, 2)
	w := &worker{seen: newObserver(), ends: map[*tied]struct{}{}}
	if err := w.put([]control.Rule{now}); err != nil {
		t.Fatal(err)
	}
	if c, err := w.dialLaptop(context.Background(), &old.Rule); err == nil {
		c.Close()
		t.Error("it was connected")
	}
	w.seen.follow([]control.Rule{now}, nil)
	portObserver{observer: w.seen}.Seen(steer.Seen{Rule: &old.Rule, Method: "GET", Target: "/secret"})
	if n := len(w.seen.queue(laptopB).waiting); n > 0 {
		t.Error("another laptop is told of the request")
	}
}
