package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// keptEvents is how many events the daemon remembers: about a day of a laptop
// that moves around, and some 100 KiB.
const keptEvents = 200

// events tells what happens to the sessions of this daemon to everybody who
// listens, and to the log in the same words. It outlives the sessions.
type events struct {
	log *slog.Logger

	mu      sync.Mutex
	last    int64 // Seq of the newest
	ring    []localapi.Event
	changed chan struct{} // closed at the next event
}

func newEvents(log *slog.Logger) *events {
	return &events{log: log, changed: make(chan struct{})}
}

// publish numbers an event and hands it on. It does not block.
func (h *events) publish(e localapi.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	record(h.log, e)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.Seq = h.last
	if len(h.ring) == keptEvents {
		h.ring = slices.Delete(h.ring, 0, 1)
	}
	h.ring = append(h.ring, e)
	close(h.changed)
	h.changed = make(chan struct{})
}

// newest is the Seq of the last event; 0 when there was none.
func (h *events) newest() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// after waits for events with a Seq above since and returns them; nil when ctx
// is done and there is none. A since from the future is another daemon's, and
// means all of ours.
func (h *events) after(ctx context.Context, since int64) []localapi.Event {
	for {
		h.mu.Lock()
		if since > h.last {
			since = 0
		}
		missed := min(int(h.last-since), len(h.ring))
		news, changed := slices.Clone(h.ring[len(h.ring)-missed:]), h.changed
		h.mu.Unlock()
		if len(news) > 0 {
			return news
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// serve sends what came after the query's since, 0 unless given, and then
// whatever comes.
func (h *events) serve(w http.ResponseWriter, r *http.Request) {
	var since int64
	if text := r.URL.Query().Get("since"); text != "" {
		var err error
		if since, err = strconv.ParseInt(text, 10, 64); err != nil || since < 0 {
			httpjson.WriteError(w, &localapi.Error{Code: localapi.CodeUsage, Message: "since is the seq of an event, not " + strconv.Quote(text), Status: http.StatusBadRequest})
			return
		}
	}
	lines := httpjson.NewLines(w)
	for {
		news := h.after(r.Context(), since)
		if news == nil {
			return
		}
		for _, e := range news {
			if lines.Send(e) != nil {
				return
			}
			since = e.Seq
		}
	}
}

// messages are what the log calls the events, by docs/logging.md.
var messages = map[localapi.EventType]struct {
	level slog.Level
	text  string
}{
	localapi.EventPhase:        {slog.LevelDebug, "phase begun"},
	localapi.EventDone:         {slog.LevelInfo, "phase done"},
	localapi.EventWarning:      {slog.LevelWarn, "session warning"},
	localapi.EventReady:        {slog.LevelInfo, "session ready"},
	localapi.EventError:        {slog.LevelWarn, "connecting failed"},
	localapi.EventPath:         {slog.LevelInfo, "path changed"},
	localapi.EventGateway:      {slog.LevelInfo, "gateway changed"},
	localapi.EventLease:        {slog.LevelInfo, "lease changed"},
	localapi.EventNetwork:      {slog.LevelInfo, "network changed"},
	localapi.EventReenrolled:   {slog.LevelInfo, "session enrolled again"},
	localapi.EventNamespace:    {slog.LevelInfo, "namespace changed"},
	localapi.EventPrimary:      {slog.LevelInfo, "session primary"},
	localapi.EventCleared:      {slog.LevelInfo, "session warning over"},
	localapi.EventEnded:        {slog.LevelWarn, "session ended"},
	localapi.EventDisconnected: {slog.LevelInfo, "session disconnected"},
}

// record is the line of the log that e is.
func record(log *slog.Logger, e localapi.Event) {
	m, ok := messages[e.Type]
	if !ok {
		m.text = "session event"
	}
	var facts []any
	add := func(name string, value any, there bool) {
		if there {
			facts = append(facts, name, value)
		}
	}
	add("session", e.Connection, e.Connection != "")
	add("phase", string(e.Phase), e.Phase != "" && e.Type != localapi.EventReady)
	add("code", e.Code, e.Code != "")
	if e.Path != nil {
		add("path", e.Path.Kind, true)
		add("addr", e.Path.Remote, e.Path.Remote != "")
	}
	add("elapsed", time.Duration(e.ElapsedMs)*time.Millisecond, e.Type == localapi.EventReady)
	add("text", e.Text, e.Text != "")
	if e.Error != nil {
		add("err", e.Error.Message, true)
	}
	log.Log(context.Background(), m.level, m.text, facts...)
}
