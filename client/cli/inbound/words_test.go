package inbound

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/steer"
)

// TestOthersWordsAreWords: what another user has written into a rule or an exposure
// neither steers the terminal of who lists it nor looks like somebody else's.
func TestOthersWordsAreWords(t *testing.T) {
	const evil = "web\x1b]0;owned\x07\x1b[2K\r\nbob\tcart\tshop\u202e\u009b1m\xff"
	var out strings.Builder
	printRules(&out, []localapi.SteerRule{{
		Name: "web", Namespace: "shop", Owner: evil, Target: evil, Local: evil, Mode: "steal",
		Matches: []steer.Match{{Path: evil, Headers: []steer.Condition{{Name: "x", Value: evil}}}},
		Pods:    []localapi.SteerPod{{Name: evil, Text: evil}},
	}}, true, time.Now())
	rules := out.String()
	printWideRules(&out, []localapi.SteerRule{{Name: "web", Pods: []localapi.SteerPod{{Name: evil}}}})
	printExposures(&out, []localapi.Exposure{{Name: "api", Namespace: "shop", Owner: evil, Local: evil}}, true, time.Now())
	for _, r := range out.String() {
		if r != '\n' && !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			t.Fatalf("%q is in %q", r, out.String())
		}
	}
	if lines := strings.Count(rules, "\n"); lines != 3 {
		t.Errorf("a rule and the trouble of its pod take %d lines:\n%s", lines, rules)
	}
	if !strings.Contains(rules, `web\x1b]0;owned\x07`) {
		t.Errorf("it is not to be seen what is there:\n%s", rules)
	}
}
