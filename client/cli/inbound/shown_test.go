package inbound

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/steer"
)

const hostile = "/\x1b]0;root\x07\x1b[2Jeverything is fine"

// TestRequestsSteerNoTerminal: an agent tells of requests in whatever words, and whoever
// may steer a pod may be its agent.
func TestRequestsSteerNoTerminal(t *testing.T) {
	for _, q := range []localapi.SteeredRequest{{Method: "GET", Target: hostile}, {Method: hostile}, {Error: hostile}, {By: hostile, Pod: hostile}} {
		var out bytes.Buffer
		s := steered{teller: teller{env: &caller.Env{Out: &out}}}
		s.request(q)
		if strings.ContainsAny(out.String(), "\x1b\x07") || !strings.Contains(out.String(), `\x1b[2J`) {
			t.Errorf("%q", out.String())
		}
	}
	var out bytes.Buffer
	s := steered{teller: teller{env: &caller.Env{Out: &out}, output: answer.JSON}}
	s.request(localapi.SteeredRequest{Target: hostile})
	if !strings.Contains(out.String(), `/\u001b]0;root\u0007\u001b[2J`) {
		t.Errorf("programs get %q", out.String())
	}
}

// TestOthersRulesSteerNoTerminal: everybody writes his rules as he likes, and others list
// them.
func TestOthersRulesSteerNoTerminal(t *testing.T) {
	now := time.Now()
	rule := localapi.SteerRule{Name: "cart", Namespace: "shop", Owner: "mallory" + hostile, Target: hostile, Since: &now,
		Matches: []steer.Match{{Headers: []steer.Condition{{Name: "x-user", Value: hostile}}}}, Pods: []localapi.SteerPod{{Name: "web-1", Text: hostile, Hint: hostile}}}
	for _, output := range []string{"", answer.Wide} {
		var out bytes.Buffer
		list := things[localapi.SteerRule]{print: printRules, wide: printWideRules}
		if err := list.show(&caller.Env{Out: &out}, listing{output: output, owners: true}, []localapi.SteerRule{rule}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\x07") || strings.Count(out.String(), `\x1b[2J`) != 5 {
			t.Errorf("%q", out.String())
		}
	}
}
