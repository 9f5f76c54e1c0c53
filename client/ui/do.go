package ui

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"podnet.dev/client/localapi"
)

// deeds are what the buttons do. Each says what it has done, and where to go then.
var deeds = map[string]func(ctx context.Context, c *localapi.Client, v *visit, form url.Values) (text, back string, err error){
	"connect": func(ctx context.Context, c *localapi.Client, v *visit, form url.Values) (string, string, error) {
		name := form.Get("context")
		req := localapi.ConnectRequest{Kube: v.kube}
		req.Kube.Flags = map[string][]string{}
		for flag, values := range v.kube.Flags {
			req.Kube.Flags[flag] = values
		}
		req.Kube.Flags["context"] = []string{name}
		_, err := c.Connect(ctx, req, func(localapi.Event) {})
		return "Connected to " + name + ".", "/", err
	},
	"profile": func(ctx context.Context, c *localapi.Client, v *visit, form url.Values) (string, string, error) {
		name := form.Get("profile")
		all, err := c.Profiles(ctx)
		if err != nil {
			return "", "/", err
		}
		for _, p := range all {
			if p.Name == name {
				_, err := c.Connect(ctx, p.Request(v.kube.Env), func(localapi.Event) {})
				return "Connected by " + name + ".", "/", err
			}
		}
		return "", "/", &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no profile " + name}
	},
	"disconnect": func(ctx context.Context, c *localapi.Client, _ *visit, form url.Values) (string, string, error) {
		name := form.Get("session")
		_, err := c.For(name).Disconnect(ctx)
		return "Disconnected from " + name + ".", "/", err
	},
	"primary": func(ctx context.Context, c *localapi.Client, _ *visit, form url.Values) (string, string, error) {
		name := form.Get("session")
		return "Short names are those of " + name + " now.", "/", c.SetPrimary(ctx, name)
	},
	"stop": func(ctx context.Context, c *localapi.Client, _ *visit, form url.Values) (string, string, error) {
		session, rule := form.Get("session"), form.Get("rule")
		_, err := c.For(session).StopSteering(ctx, rule)
		return rule + " steers no more.", to("/steering", "session", session), err
	},
	"replay": func(ctx context.Context, c *localapi.Client, _ *visit, form url.Values) (string, string, error) {
		session, rule := form.Get("session"), form.Get("rule")
		back := to("/rule", "session", session, "rule", rule)
		req := localapi.ReplayRequest{}
		var err error
		if req.Connection, err = time.Parse(time.RFC3339Nano, form.Get("connection")); err == nil {
			req.Exchange, err = time.Parse(time.RFC3339Nano, form.Get("exchange"))
		}
		if err != nil {
			return "", back, &localapi.Error{Code: localapi.CodeUsage, Message: "which request?"}
		}
		i, err := c.For(session).Replay(ctx, rule, req)
		if err != nil || len(i.Exchanges) == 0 {
			return "", back, err
		}
		id := exchangeID(i.Time, i.Exchanges[0].Time)
		return "The request was sent once more; the newest below is what came of it.", to("/rule", "session", session, "rule", rule, "open", id) + "#" + id, nil
	},
}

// deedTime is how long a button may take: connecting waits for logins.
const deedTime = 3 * time.Minute

// do does what a button says and goes back to a page, which says what came of it.
func (s *site) do(w http.ResponseWriter, r *http.Request, of *visit) {
	deed := deeds[r.PathValue("what")]
	if deed == nil || r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deedTime)
	defer cancel()
	text, back, err := deed(ctx, s.client, of, r.PostForm)
	said := flash{Text: text}
	if err != nil {
		e := troubleOf(err)
		said = flash{Failed: true, Text: e.Message, Hint: e.Hint}
	}
	of.say(said)
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// troubleOf is an error as a page says it.
func troubleOf(err error) *localapi.Error {
	var e *localapi.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &localapi.Error{Code: localapi.CodeTimeout, Message: "the daemon does not answer", Hint: "podnet doctor"}
	}
	return &localapi.Error{Code: localapi.CodeDaemon, Message: err.Error()}
}

// to is the address of a page with a query of names and values.
func to(path string, query ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		if query[i+1] != "" {
			q.Set(query[i], query[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
