package ui

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"podnet.dev/client/localapi"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

// site answers for as long as the port is open.
type site struct {
	client  *localapi.Client
	log     *slog.Logger
	door    *door
	history *history
	news    *news
}

// loadTime is how long the daemon may take to tell what a page shows.
const loadTime = 5 * time.Second

// pages are what there is to see: each has a template of its file's name, and what it
// needs beside what all pages do.
var pages = map[string]page{
	"/":         {"overview", "Overview", overview},
	"/services": {"services", "Services", services},
	"/names":    {"names", "Names", names},
	"/steering": {"steering", "Steering", steering},
	"/rule":     {"rule", "Rule", rule},
}

type page struct {
	file, title string
	load        func(ctx context.Context, s *site, v *view) error
}

// templates has one set for each page: all have the same frame.
var templates = func() map[string]*template.Template {
	out := map[string]*template.Template{}
	for path, p := range pages {
		out[path] = template.Must(template.New("frame.html").Funcs(functions).ParseFS(templateFiles, "templates/frame.html", "templates/"+p.file+".html"))
	}
	return out
}()

func (s *site) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /open/{token}", s.door.enterPage)
	for path := range pages {
		pattern := "GET " + path
		if path == "/" {
			pattern += "{$}"
		}
		mux.HandleFunc(pattern, s.door.let(s.show))
	}
	mux.HandleFunc("GET /live", s.door.let(s.live))
	mux.HandleFunc("POST /do/{what}", s.door.let(s.do))
	files, err := fs.Sub(staticFiles, "static")
	if err != nil {
		panic(err) // it is embedded
	}
	static := http.StripPrefix("/static/", http.FileServerFS(files))
	mux.HandleFunc("GET /static/", s.door.let(func(w http.ResponseWriter, r *http.Request, _ *visit) { static.ServeHTTP(w, r) }))
	mux.HandleFunc("/", s.door.let(func(w http.ResponseWriter, r *http.Request, _ *visit) { http.NotFound(w, r) }))
	return s.door.guard(mux)
}

// view is what a template gets.
type view struct {
	Path, Title string
	Query       url.Values
	CSRF        string
	Flash       *flash
	Now         time.Time
	Status      localapi.Status
	// Session is the one that the page is about, where it is about one.
	Session *localapi.Connection
	// Trouble is why something that belongs here is missing.
	Trouble *localapi.Error
	// Page is the page's own.
	Page any

	visit *visit
}

// Live is where the page hears how it is now.
func (v *view) Live() string {
	return "/live?" + url.Values{"path": {v.Path}, "query": {v.Query.Encode()}}.Encode()
}

// load finds out what a page shows. What the daemon does not tell is on the page.
func (s *site) load(ctx context.Context, path string, query url.Values, of *visit) *view {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	v := &view{Path: path, Title: pages[path].title, Query: query, CSRF: of.csrf, visit: of, Now: time.Now(), Status: localapi.NewStatus()}
	status, err := s.client.Status(ctx)
	if err == nil {
		v.Status = status
		v.Session = pick(v.Status.Connections, query.Get("session"))
		err = pages[path].load(ctx, s, v)
	}
	if err != nil {
		v.Trouble = troubleOf(err)
	}
	return v
}

// pick is the session of a name; without one, or where it has gone, the primary or
// the first. nil: there is none.
func pick(all []localapi.Connection, name string) *localapi.Connection {
	var best *localapi.Connection
	for i := range all {
		c := &all[i]
		if c.Name == name {
			return c
		}
		if best == nil || c.Primary {
			best = c
		}
	}
	return best
}

func (s *site) show(w http.ResponseWriter, r *http.Request, of *visit) {
	v := s.load(r.Context(), r.URL.Path, r.URL.Query(), of)
	v.Flash = of.said()
	var b bytes.Buffer
	if err := templates[v.Path].Execute(&b, v); err != nil {
		s.log.Warn("dashboard page not made", "page", v.Path, "err", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}
