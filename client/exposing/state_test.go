package exposing

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
)

var start = time.Unix(1_000_000, 0)

// oneReady is a state with an exposure that is ready.
func oneReady() (*state, *exposure) {
	s := newState("alice", lease)
	s.member = Member{Peer: "u1"}
	e := &exposure{id: id{"shop", "my-api"}, ports: []uint16{80}, protocol: "tcp", settled: true, led: "host", since: start, renewed: start, polled: start, pointed: start}
	e.object = s.write(e)
	e.object.UID = "1"
	e.object.Status.Host = "host"
	e.object.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}}
	s.all[e.id] = e
	return s, e
}

func TestNext(t *testing.T) {
	for name, c := range map[string]struct {
		given func(*state, *exposure)
		after time.Duration
		want  verb
	}{
		"what is ready is left alone":                  {nil, time.Second, nothing},
		"and looked at now and then":                   {nil, slowly, doPoll},
		"its Service, too":                             {nil, check, doPoint},
		"a new one is written":                         {func(_ *state, e *exposure) { e.object = nil }, 0, doCreate},
		"once there is a Peer":                         {func(s *state, e *exposure) { e.object, s.member.Peer = nil, "" }, 0, nothing},
		"one thing at a time":                          {func(_ *state, e *exposure) { e.object, e.busy = nil, true }, 0, nothing},
		"what failed is tried later":                   {func(_ *state, e *exposure) { e.object, e.retry = nil, start.Add(again) }, time.Second, nothing},
		"then it is":                                   {func(_ *state, e *exposure) { e.object, e.retry = nil, start.Add(again) }, again, doCreate},
		"one that is on its way is asked for quickly":  {func(_ *state, e *exposure) { e.object.Status = v1alpha1.ExposureStatus{} }, quickly, doPoll},
		"but not for ever":                             {func(_ *state, e *exposure) { e.object.Status, e.polled = v1alpha1.ExposureStatus{}, start.Add(eager) }, eager + quickly, nothing},
		"an admitted one gets its Service":             {func(_ *state, e *exposure) { e.led = "" }, 0, doPoint},
		"so does one whose host has changed":           {func(_ *state, e *exposure) { e.object.Status.Host = "another" }, 0, doPoint},
		"one that is not admitted any more keeps it":   {func(_ *state, e *exposure) { e.object.Status.Conditions[0].Status = metav1.ConditionFalse }, 0, nothing},
		"a renewal comes before all else":              {func(_ *state, e *exposure) { e.due, e.led = true, "" }, check, doRenew},
		"another Peer needs another object":            {func(s *state, _ *exposure) { s.member.Peer = "u2" }, 0, doDelete},
		"while there is none the old one goes as well": {func(s *state, _ *exposure) { s.member.Peer = "" }, 0, doDelete},
		"what is stopped goes":                         {func(_ *state, e *exposure) { e.stop() }, 0, doDelete},
		"whatever it was waiting for":                  {func(_ *state, e *exposure) { e.retry = start.Add(time.Hour); e.stop() }, 0, doDelete},
		"and is not written again":                     {func(_ *state, e *exposure) { e.object = nil; e.stop() }, 0, nothing},
	} {
		t.Run(name, func(t *testing.T) {
			s, e := oneReady()
			if c.given != nil {
				c.given(s, e)
			}
			if got := s.next(e, start.Add(c.after)); got != c.want {
				t.Errorf("next is %q, want %q", got, c.want)
			}
		})
	}
}

func TestDone(t *testing.T) {
	no := &localapi.Error{Code: localapi.CodeForbidden, Message: "no"}
	away := errors.New("away")
	another := func(e *exposure) *v1alpha1.Exposure {
		o := e.object.DeepCopy()
		o.UID = "2"
		return o
	}
	for name, c := range map[string]struct {
		done    func(*state, *exposure)
		stopped bool
		object  bool
		again   time.Duration
	}{
		"read and well":                {func(s *state, e *exposure) { s.polled(e, e.object, start, nil) }, false, true, 0},
		"a failure to ask":             {func(s *state, e *exposure) { s.polled(e, nil, start, away) }, false, true, again},
		"a no":                         {func(s *state, e *exposure) { s.renewed(e, start, start, no) }, false, true, muchLater},
		"a no to a new one ends it":    {func(_ *state, e *exposure) { e.settled = false; e.created(nil, start, start, no) }, true, true, 0},
		"deleted by somebody":          {func(s *state, e *exposure) { s.polled(e, nil, start, cluster.ErrGone) }, true, false, 0},
		"seen at the renewal":          {func(s *state, e *exposure) { s.renewed(e, start, start, cluster.ErrGone) }, true, false, 0},
		"replaced by somebody":         {func(s *state, e *exposure) { s.polled(e, another(e), start, nil) }, true, false, 0},
		"its lease was over":           {func(s *state, e *exposure) { s.polled(e, nil, start.Add(lease), cluster.ErrGone) }, false, false, 0},
		"deleted":                      {func(_ *state, e *exposure) { e.stop(); e.deleted(start, nil) }, true, false, 0},
		"not deleted yet":              {func(_ *state, e *exposure) { e.stop(); e.deleted(start, away) }, true, true, again},
		"never to be deleted by us":    {func(_ *state, e *exposure) { e.stop(); e.deleted(start, no) }, true, false, 0},
		"a Service that is not ours":   {func(_ *state, e *exposure) { e.pointedTo("host", start, no) }, false, true, muchLater},
		"a Service that leads to host": {func(_ *state, e *exposure) { e.err = away; e.pointedTo("host", start, nil) }, false, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, e := oneReady()
			c.done(s, e)
			retry := time.Time{}
			if c.again != 0 {
				retry = start.Add(c.again)
			}
			if e.stopping != c.stopped || (e.object != nil) != c.object || !e.retry.Equal(retry) || (e.err != nil) != (c.again != 0) && !c.stopped {
				t.Errorf("stopping %v (%v), object %v, retry %v, trouble %v", e.stopping, e.failed, e.object, e.retry, e.err)
			}
		})
	}
}
