package dnsproxy

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
)

func TestAsked(t *testing.T) {
	w := newWorld(t)
	all, more := w.split.Asked(0)
	if len(all) != 0 {
		t.Errorf("before any question: %+v", all)
	}
	check, _ := w.split.Check("cluster.local")
	w.ask(check, dns.TypeA) // nobody's question
	select {
	case <-more:
		t.Error("our own check counts")
	default:
	}
	w.ask("web.", dns.TypeA)
	<-more
	w.ask("web.", dns.TypeA)
	w.ask("gone.cart.", dns.TypeAAAA)
	all, _ = w.split.Asked(1)
	var told []string
	for _, a := range all {
		told = append(told, fmt.Sprint(a.Seq, a.Name, a.Type, a.Rcode, a.Class, len(a.Answers), len(a.Steps) > 0 && a.Steps[0].Cached, a.Took >= 0, a.Time.IsZero()))
	}
	if got, want := fmt.Sprint(told), "[2web.ANOERRORsingle1 true true false 3gone.cart.AAAANXDOMAINshort0 false true false]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if again, _ := w.split.Asked(99); len(again) != 3 {
		t.Errorf("since the future: %d questions, want all", len(again))
	}
}

func TestAskedIsBounded(t *testing.T) {
	var r recent
	for i := range 2*keptQuestions + 7 {
		r.add(&asked{q: dns.Question{Name: fmt.Sprint(i + 1)}})
	}
	all, first, _ := r.after(3)
	if last := uint64(2*keptQuestions + 7); len(all) != keptQuestions || first != last-keptQuestions+1 || all[0].q.Name != fmt.Sprint(first) || all[keptQuestions-1].q.Name != fmt.Sprint(last) {
		t.Errorf("%d questions from %d, %s to %s", len(all), first, all[0].q.Name, all[len(all)-1].q.Name)
	}
	if all, first, _ := r.after(2*keptQuestions + 6); len(all) != 1 || first != 2*keptQuestions+7 {
		t.Errorf("after the last but one: %d from %d", len(all), first)
	}
}
