package tray

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"podnet.dev/client/config"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// actTime is how long what was clicked may take, other than connecting and examining,
// which tries each way in turn.
const (
	actTime     = 30 * time.Second
	examineTime = 2 * time.Minute
)

// do is what a click asks for.
func (t *tray) do(ctx context.Context, a Action) {
	defer t.soon()
	switch a.Verb {
	case Connect:
		t.connect(ctx, "the kubeconfig's cluster", func(c config.Config) (localapi.ConnectRequest, error) { return c.Request(t.kube(nil)) })
		return
	case ConnectContext:
		t.connect(ctx, a.Name, func(c config.Config) (localapi.ConnectRequest, error) {
			return c.Request(t.kube(map[string][]string{"context": {a.Name}}))
		})
		return
	case ConnectProfile:
		t.connect(ctx, a.Name, func(c config.Config) (localapi.ConnectRequest, error) { return c.ProfileRequest(a.Name, t.Environ) })
		return
	}
	allowed := actTime
	if a.Verb == CopyDiagnostics {
		allowed = examineTime
	}
	ctx, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	session := t.Client.For(a.Session)
	var err error
	switch a.Verb {
	case Disconnect, DisconnectAll:
		err = t.disconnect(ctx, a.Session)
	case ListContexts:
		if err = t.StartDaemon(ctx); err == nil {
			err = t.list(ctx)
		}
	case SetNamespace:
		err = session.SetNamespace(ctx, a.Name)
	case SetPrimary:
		err = t.Client.SetPrimary(ctx, a.Session)
	case StopRule:
		_, err = session.StopSteering(ctx, a.Name)
	case Copy:
		if err = t.Desktop.Copy(ctx, a.Name); err == nil {
			t.tell(Note{Title: "Copied", Text: a.Name})
		}
	case CopyDiagnostics:
		err = t.diagnose(ctx)
	case OpenDashboard:
		err = t.dashboard(ctx)
	case OpenDocs:
		err = t.Desktop.Open(t.Docs)
	case StartAtLogin:
		on, _ := t.Desktop.StartsAtLogin()
		err = t.Desktop.SetStartsAtLogin(!on)
		t.change(func(s *State) { s.StartsAtLogin, s.CanStartAtLogin = t.Desktop.StartsAtLogin() })
	case Notifications:
		err = t.prefer("tray.notify", !t.now().Notify)
	case Reconnect:
		err = t.prefer("defaults.reconnect", !t.now().Reconnect)
	}
	t.complain(ctx, a, err)
}

// complain tells why a click came to nothing, whether or not the user wants to be
// told what happens by itself.
func (t *tray) complain(ctx context.Context, a Action, err error) {
	if err == nil || ctx.Err() == context.Canceled {
		return
	}
	t.Log.Error("a click came to nothing", "verb", a.Verb, "name", a.Name, "err", err)
	e := httpjson.FromError(err)
	if errors.Is(err, context.DeadlineExceeded) {
		e = &localapi.Error{Message: "the daemon does not answer in time", Hint: "podnet logs may say why"}
	}
	t.Desktop.Notify(Note{Title: "podnet could not do that", Text: sentence(e), Urgent: true})
}

// prefer writes into the user's configuration.
func (t *tray) prefer(key string, on bool) error {
	err := t.config.Set(key, strconv.FormatBool(on))
	t.change(t.configure)
	return err
}

// tell shows a note unless the user wants none.
func (t *tray) tell(n Note) {
	if t.now().Notify {
		t.Desktop.Notify(n)
	}
}

// connect asks the daemon for a session, starting one where there is none.
func (t *tray) connect(ctx context.Context, name string, request func(config.Config) (localapi.ConnectRequest, error)) {
	busy := false
	t.change(func(s *State) {
		if busy = s.Trying != ""; !busy {
			s.Trying, s.Failed, s.Status.LastError = name, nil, nil
		}
	})
	if busy {
		return
	}
	c, err := t.config.Load()
	var req localapi.ConnectRequest
	if err == nil {
		req, err = request(c)
	}
	if err == nil {
		err = t.join(ctx, req)
	}
	t.Log.Info("asked to connect", "to", name, "err", err)
	_, _ = t.ask(ctx) // so that what was tried is not gone for a moment
	t.change(func(s *State) {
		s.Trying = ""
		if e := httpjson.FromError(err); err != nil && e.Code != localapi.CodeCanceled && ctx.Err() == nil {
			s.Failed = e
		}
	})
}

// join is one attempt, and another one where the daemon was about to end for want of
// work when it heard of the first.
func (t *tray) join(ctx context.Context, req localapi.ConnectRequest) error {
	for attempt := 0; ; attempt++ {
		if err := t.StartDaemon(ctx); err != nil {
			return err
		}
		t.soon()
		begun := false
		_, err := t.Client.Connect(ctx, req, func(localapi.Event) { begun = true })
		var gone *localapi.Error
		ended := errors.Is(err, localapi.ErrNoDaemon) || errors.As(err, &gone) && gone.Code == localapi.CodeDaemon
		if !ended || begun || attempt == 1 {
			return err
		}
	}
}

// disconnect ends a session, or all with the name "".
func (t *tray) disconnect(ctx context.Context, session string) error {
	t.change(func(s *State) { s.Failed, s.Status.LastError = nil, nil })
	end := t.Client.For(session).Disconnect
	names := []string{session}
	if session == "" {
		end, names = t.Client.DisconnectAll, nil
		for _, c := range t.now().Status.Connections {
			names = append(names, c.Name)
		}
	}
	t.part(names...)
	_, err := end(ctx)
	if errors.Is(err, localapi.ErrNoDaemon) {
		return nil
	}
	return err
}

// dashboard opens the daemon's page, which connects as the menu does.
func (t *tray) dashboard(ctx context.Context) error {
	if err := t.StartDaemon(ctx); err != nil {
		return err
	}
	ui, err := t.Client.UI(ctx, localapi.UIRequest{Kube: t.kube(nil)})
	if err != nil {
		return err
	}
	return t.Desktop.Open(ui.URL)
}

// diagnose puts into the clipboard what podnet doctor -o json prints.
func (t *tray) diagnose(ctx context.Context) error {
	t.change(func(s *State) { s.Examining = true })
	defer t.change(func(s *State) { s.Examining = false })
	if err := t.StartDaemon(ctx); err != nil {
		return err
	}
	var flags map[string][]string
	if c, ok := t.now().Primary(); ok {
		flags = map[string][]string{"context": {c.Context}}
	}
	findings := localapi.NewFindings()
	req := localapi.DoctorRequest{Kube: t.kube(flags), GatewayNamespace: localapi.GatewayNamespace}
	err := t.Client.Doctor(ctx, req, func(f localapi.Finding) { findings.Findings = append(findings.Findings, f) })
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(findings, "", "  ")
	if err != nil {
		return err
	}
	if err := t.Desktop.Copy(ctx, string(text)); err != nil {
		return err
	}
	problems := 0
	for _, f := range findings.Findings {
		if f.Result == localapi.ResultProblem {
			problems++
		}
	}
	t.tell(Note{Title: "The diagnostics are in the clipboard", Text: fmt.Sprintf("%d findings, %d of them problems", len(findings.Findings), problems)})
	return nil
}
