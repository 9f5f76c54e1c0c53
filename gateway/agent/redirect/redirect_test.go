package redirect

import (
	"strings"
	"testing"
)

func TestOnlyGoodNames(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "7c9f": true, "abcdefghij012345": true,
		"": false, "abcdefghij0123456": false, "A": false, "a b": false, "a\n": false, "a-b": false, "ü": false,
	} {
		if name, err := tableName(id); (err == nil) != ok || ok && name != "podnet_"+id {
			t.Errorf("tableName(%q) = %q, %v", id, name, err)
		}
	}
}

func TestOnlyGoodPorts(t *testing.T) {
	many := make([]Port, MaxPorts+1)
	for i := range many {
		many[i] = Port{TCP, uint16(i + 1), 15001}
	}
	for _, c := range []struct {
		name  string
		ports []Port
		want  string // of the error; empty: none
	}{
		{"none", nil, ""},
		{"one agent for two ports", []Port{{TCP, 80, 15001}, {TCP, 443, 15001}}, ""},
		{"one number in two protocols", []Port{{TCP, 53, 15001}, {UDP, 53, 15001}}, ""},
		{"the agent's number in the other protocol", []Port{{TCP, 80, 15001}, {UDP, 15001, 15002}}, ""},
		{"as many as can be", many[:MaxPorts], ""},
		{"one more", many, "at most 256"},
		{"SCTP", []Port{{132, 80, 15001}}, "protocol 132 80 to 15001: neither"},
		{"port 0", []Port{{TCP, 0, 15001}}, "port 0"},
		{"to port 0", []Port{{UDP, 80, 0}}, "redirect udp 80 to 0: port 0"},
		{"twice", []Port{{TCP, 80, 15001}, {TCP, 80, 15002}}, "named twice"},
		{"to itself", []Port{{TCP, 80, 80}}, "own port"},
		{"in a circle", []Port{{TCP, 80, 81}, {TCP, 81, 15001}}, "own port"},
	} {
		err := checkPorts(c.ports)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if checkGroup(0) == nil {
		t.Error("group 0 is everybody's")
	}
}
