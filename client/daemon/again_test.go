package daemon

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"podnet.dev/client/localapi"
)

// lost is how a session ends that somebody will want again.
var lost = &localapi.Error{Code: localapi.CodeUnreachable, Message: "the network is away"}

// among runs sessions as a daemon does, with a clock of its own.
func among(t *testing.T, h *fakeHost) (*sessions, func(localapi.ConnectRequest) *attempt) {
	t.Helper()
	h.hold, h.end = make(chan struct{}), make(chan error)
	close(h.hold)
	s := newSessions(t.Context(), Options{NewSession: h.session, Where: where, Log: slog.New(slog.DiscardHandler)}, func(e localapi.Event) { _ = h.told.hear(e) })
	return s, func(req localapi.ConnectRequest) *attempt {
		a, err := s.connect(t.Context(), req.WithDefaults())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.leave(false)
		return a
	}
}

func where(k localapi.Kube) (string, string, error) {
	name := strings.Join(k.Flags["context"], "")
	return name, "https://" + name, nil
}

func (h *fakeHost) set(fail error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = fail
}

func wanted(s localapi.Status) (names []string) {
	for _, w := range s.Warnings {
		if w.Code == "reconnect" {
			names = append(names, w.Connection)
		}
	}
	return names
}

// TestEndedSessionComesBack where that was asked for, however long the cluster is
// away, and is the primary again that it was.
func TestEndedSessionComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{}
		s, connect := among(t, h)
		req := to("lab")
		req.Reconnect = true
		connect(req)
		h.set(lost)
		h.end <- lost
		time.Sleep(5 * time.Minute)
		_, tries := h.count()
		st := s.status()
		if got := wanted(st); !slices.Equal(got, []string{"lab"}) || st.State != localapi.Failed || tries < 6 || tries > 12 {
			t.Errorf("after 5 minutes: wanted %v, state %s, %d attempts", got, st.State, tries)
		}
		if s.idle() != 0 || s.none() {
			t.Error("the daemon would end")
		}
		h.set(nil)
		time.Sleep(againMax * 12 / 10)
		synctest.Wait()
		st = s.status()
		if st.State != localapi.Connected || len(wanted(st)) > 0 || !st.Connections[0].Primary {
			t.Errorf("afterwards: %+v", st)
		}
		// And it does so again.
		h.end <- lost
		time.Sleep(againMin * 12 / 10)
		synctest.Wait()
		if st := s.status(); st.State != localapi.Connected {
			t.Errorf("the second time: %+v", st)
		}
		if r, err := s.disconnect(t.Context(), "", false, false); err != nil || r.Sessions != 1 {
			t.Errorf("disconnect: %+v, %v", r, err)
		}
		if time.Sleep(time.Hour); !s.none() {
			t.Error("it came back although somebody had disconnected it")
		}
	})
}

// TestEndedSessionStaysAway where nobody asked for more, where that was held, and
// where no time will mend it.
func TestEndedSessionStaysAway(t *testing.T) {
	held, odd := to("lab"), to("lab")
	held.Reconnect, held.Hold, odd.Reconnect = true, true, true
	for what, c := range map[string]struct {
		req  localapi.ConnectRequest
		then error
	}{"not asked for": {to("lab"), nil}, "held": {held, nil}, "in the way of something": {odd, &localapi.Error{Code: localapi.CodeConflict, Message: "no"}}} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &fakeHost{}
				s, connect := among(t, h)
				connect(c.req)
				h.set(c.then)
				h.end <- lost
				if time.Sleep(time.Hour); !s.none() || len(wanted(s.status())) > 0 {
					t.Errorf("%+v", s.status())
				}
				if got := strings.Contains(h.told.types(), "warning"); got != (c.then != nil) {
					t.Errorf("told %s", h.told.types())
				}
			})
		})
	}
}

// TestDisconnectGivesUpWhatIsWanted, by name, and does not touch the others.
func TestDisconnectGivesUpWhatIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{}
		s, connect := among(t, h)
		for _, name := range []string{"lab", "blue"} {
			req := to(name)
			req.Reconnect = true
			connect(req)
		}
		h.set(lost)
		h.end <- lost
		h.end <- lost
		time.Sleep(time.Second)
		if _, err := s.disconnect(t.Context(), "", false, false); code(err) != localapi.CodeUsage {
			t.Errorf("which? %v", err)
		}
		if r, err := s.disconnect(t.Context(), "", false, true); err != nil || r.Sessions != 0 {
			t.Errorf("one of a caller who holds nothing: %+v, %v", r, err)
		}
		if r, err := s.disconnect(t.Context(), "lab", false, false); err != nil || !slices.Equal(r.Names, []string{"lab"}) {
			t.Errorf("disconnect lab: %+v, %v", r, err)
		}
		h.set(nil)
		time.Sleep(againMax * 2)
		synctest.Wait()
		if st := s.status(); len(st.Connections) != 1 || st.Connections[0].Name != "blue" {
			t.Errorf("connected are %+v", st.Connections)
		}
		// What somebody connects by hand is wanted no more.
		h.set(lost)
		h.end <- lost
		time.Sleep(time.Second)
		h.set(nil)
		connect(to("blue"))
		if got := wanted(s.status()); len(got) > 0 {
			t.Errorf("still wanted: %v", got)
		}
		if r, err := s.disconnect(t.Context(), "", true, false); err != nil || r.Sessions != 1 {
			t.Errorf("disconnect all: %+v, %v", r, err)
		}
	})
}

// TestProfilesAreConnectedAtTheStart of a daemon that nobody's command has started.
func TestProfilesAreConnectedAtTheStart(t *testing.T) {
	kept := fakeProfiles{
		"lab":  {Name: "lab", AutoConnect: true, Connect: localapi.Words{Context: "dev"}},
		"blue": {Name: "blue", Connect: localapi.Words{Context: "blue"}},
	}
	c, _, _ := start(t, &fakeHost{}, func(o *Options) { contexts(o); o.Profiles = kept })
	eventually(t, "the profile is connected", func() bool { return names(t, c) == "lab*" && state(t, c) == localapi.Connected })
	c, _, _ = start(t, &fakeHost{}, func(o *Options) { contexts(o); o.Profiles, o.OnDemand, o.Idle = kept, true, time.Hour })
	if got := names(t, c); got != "" {
		t.Errorf("a daemon on demand has connected %s", got)
	}
}
