package ui

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"time"

	"podnet.dev/client/localapi"
)

// door says who comes in. A URL with a token lets one browser in, once, for as long as
// the port is open: the browser gets a cookie for it. A page of another site, even one
// of another port of this machine, gets nowhere:
//
//   - the Host must be ours, so that no other name leads here (DNS rebinding);
//   - a request that says where it is from must be from us or from nobody
//     (Sec-Fetch-Site, Origin), and a POST must be from us;
//   - the cookie goes to us only, and no script reads it (SameSite=Strict, HttpOnly);
//   - a POST has a token of the visit in its form as well.
type door struct {
	host string

	mu     sync.Mutex
	tokens map[string]invitation
	visits map[string]*visit
	open   int       // pages that are being kept up to date
	last   time.Time // somebody was here
}

type invitation struct {
	kube  localapi.Kube
	until time.Time
}

// visit is one browser.
type visit struct {
	csrf  string
	kube  localapi.Kube
	began time.Time

	mu    sync.Mutex
	flash *flash
}

// flash is what came of the last button, to be said once.
type flash struct {
	Failed     bool
	Text, Hint string
}

func (v *visit) say(f flash) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.flash = &f
}

func (v *visit) said() *flash {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.flash
	v.flash = nil
	return f
}

const (
	cookieName = "podnet-ui"
	// maxVisits is how many browsers there may be; one more sends the first away.
	maxVisits = 16
)

func newDoor(host string) *door {
	return &door{host: host, tokens: map[string]invitation{}, visits: map[string]*visit{}, last: time.Now()}
}

// secret is 256 bits that nobody guesses.
func secret() string { return rand.Text() + rand.Text() }

// invite makes a URL that is good once.
func (d *door) invite(kube localapi.Kube, now time.Time) localapi.UI {
	d.mu.Lock()
	defer d.mu.Unlock()
	for t, i := range d.tokens {
		if now.After(i.until) {
			delete(d.tokens, t)
		}
	}
	token, until := secret(), now.Add(tokenTime)
	d.tokens[token] = invitation{kube, until}
	d.last = now
	return localapi.UI{APIVersion: localapi.APIVersion, Kind: "UI", URL: "http://" + d.host + "/open/" + token, Until: until}
}

// enter takes a token for a cookie; ok is false where it is worth nothing.
func (d *door) enter(token string, now time.Time) (cookie string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := d.tokens[token]
	delete(d.tokens, token)
	if !ok || now.After(i.until) {
		return "", false
	}
	if len(d.visits) >= maxVisits {
		oldest := ""
		for c, v := range d.visits {
			if oldest == "" || v.began.Before(d.visits[oldest].began) {
				oldest = c
			}
		}
		delete(d.visits, oldest)
	}
	cookie = secret()
	d.visits[cookie] = &visit{csrf: secret(), kube: i.kube, began: now}
	return cookie, true
}

// visit is the browser that a request is from; nil: nobody we know.
func (d *door) visit(r *http.Request) *visit {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = time.Now()
	return d.visits[c.Value]
}

// stay counts a page that is open, until leave.
func (d *door) stay() (leave func()) {
	add := func(n int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.open += n
		d.last = time.Now()
	}
	add(1)
	return func() { add(-1) }
}

// quiet is for how long nobody has had a page open.
func (d *door) quiet(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open > 0 {
		return 0
	}
	return now.Sub(d.last)
}

// policy lets the pages have what is ours, and nothing run in them that is not.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard lets requests in that may come at all, whoever they are from.
func (d *door) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.Host != d.host || !d.ours(r) {
			http.Error(w, "not from here", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ours says that no other site's page sent a request. One that is only gone to, from a
// link say, is nobody's.
func (d *door) ours(r *http.Request) bool {
	own := "http://" + d.host
	if r.Method != http.MethodGet {
		return r.Method == http.MethodPost && r.Header.Get("Origin") == own
	}
	if o := r.Header.Get("Origin"); o != "" && o != own {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && strings.HasPrefix(r.URL.Path, "/open/")
}

// let lets known browsers pass, and tells others how to become one.
func (d *door) let(next func(http.ResponseWriter, *http.Request, *visit)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := d.visit(r)
		if v == nil {
			refuse(w)
			return
		}
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
			if r.ParseForm() != nil || subtle.ConstantTimeCompare([]byte(r.PostForm.Get("csrf")), []byte(v.csrf)) != 1 {
				http.Error(w, "not from here", http.StatusForbidden)
				return
			}
		}
		next(w, r, v)
	}
}

// enterPage takes the token of a URL. The answer is a page, not a redirection: the
// browser sends the new cookie along only when it goes on from one of ours.
func (d *door) enterPage(w http.ResponseWriter, r *http.Request) {
	cookie, ok := d.enter(r.PathValue("token"), time.Now())
	switch {
	case ok:
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	case d.visit(r) == nil:
		refuse(w)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark"><link rel="icon" href="/static/icon.svg"><meta http-equiv="refresh" content="0;url=/"><title>podnet</title><a href="/">podnet</a>`))
}

// refuse says how to come in. It is all that a stranger gets.
func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write([]byte(`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><title>podnet</title><h1>This address is not good any more</h1><p>Each address opens the dashboard once, within a minute. For another one, run <code>podnet ui</code>.`))
}
