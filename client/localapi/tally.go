package localapi

import "fmt"

// Tally is in brief how the rules of a session stand, or its exposures.
type Tally struct {
	Count int `json:"count"`
	// Ready are those that act; of a rule, in each of its pods.
	Ready int `json:"ready"`
	// Trouble has a line for each that has something to say for itself.
	Trouble []string `json:"trouble"`
}

// TallyRules is how rules stand.
func TallyRules(rules []SteerRule) Tally {
	t := Tally{Count: len(rules), Trouble: []string{}}
	for _, r := range rules {
		if r.Ready > 0 && r.Ready == len(r.Pods) {
			t.Ready++
		}
		var first string
		others := 0
		for _, p := range r.Pods {
			switch {
			case p.Text == "" || p.State == SteerPodWaiting:
			case first == "":
				first = fmt.Sprintf("%s, %s: %s", r.Name, p.Name, p.Text)
			default:
				others++
			}
		}
		if others > 0 {
			first += fmt.Sprintf(" (and %d more)", others)
		}
		t.note(first)
	}
	return t
}

// TallyExposures is how exposures stand.
func TallyExposures(all []Exposure) Tally {
	t := Tally{Count: len(all), Trouble: []string{}}
	for _, e := range all {
		if e.State == ExposeStateReady {
			t.Ready++
		}
		if e.Text != "" && e.State != ExposeStateWaiting {
			t.note(fmt.Sprintf("%s/%s: %s", e.Namespace, e.Name, e.Text))
		}
	}
	return t
}

func (t *Tally) note(trouble string) {
	if trouble != "" {
		t.Trouble = append(t.Trouble, trouble)
	}
}
