package redirect

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		errno error
		want  any
	}{
		{unix.EPERM, new(*PermissionError)},
		{unix.EACCES, new(*PermissionError)},
		{unix.EOPNOTSUPP, new(*UnsupportedError)},
		{unix.EPROTONOSUPPORT, new(*UnsupportedError)},
		{unix.EAFNOSUPPORT, new(*UnsupportedError)},
	} {
		err := fmt.Errorf("make table: %w", classify(fmt.Errorf("receive: %w", c.errno)))
		var hint interface{ Hint() string }
		if !errors.As(err, c.want) || !errors.Is(err, c.errno) || !errors.As(err, &hint) || hint.Hint() == "" {
			t.Errorf("%v became %v, want a %T", c.errno, err, c.want)
		}
	}
	if err := classify(unix.ENOBUFS); err != unix.ENOBUFS {
		t.Errorf("ENOBUFS became %v", err)
	}
}

func TestOpenRefusesNonsense(t *testing.T) {
	if _, err := Open("Not an id", agentGroup); err == nil {
		t.Error("a bad id was taken")
	}
	if _, err := Open("test", 0); err == nil {
		t.Error("group 0 was taken")
	}
	if err := Remove(""); err == nil {
		t.Error("a bad id was removed")
	}
	if err := new(Table).Set(make([]Port, 1)); err == nil {
		t.Error("a bad port was taken")
	}
}
