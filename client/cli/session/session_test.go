package session

import (
	"testing"

	"podnet.dev/client/localapi"
)

func TestConnectionOf(t *testing.T) {
	s := localapi.NewStatus()
	find := func(name string) string {
		c, err := Of(s, name)
		if err != nil {
			return NotConnected(err).Code
		}
		return c.Name
	}
	check := func(want string) {
		t.Helper()
		if got := find("") + " " + find("blue"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("not-connected not-connected")
	s.Connections = append(s.Connections, localapi.Connection{Name: "lab"})
	check("lab not-connected") // nobody is primary, and there is one only
	s.Connections = append(s.Connections, localapi.Connection{Name: "blue"})
	check("usage blue")
	s.Connections[1].Primary = true
	check("blue blue")
}
