package httpjson

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

type coded struct{}

func (coded) Error() string { return "no such pod" }
func (coded) Code() string  { return "not-found" }
func (coded) Hint() string  { return "kubectl get pods" }

func TestErrorKeepsCodeAndHintAcrossTheWire(t *testing.T) {
	rec := httptest.NewRecorder()
	WriteError(rec, fmt.Errorf("connect: %w", coded{}))
	var got *Error
	if err := Response(rec.Result(), nil); !errors.As(err, &got) {
		t.Fatalf("Response = %v, want an *Error", err)
	}
	want := Error{Code: "not-found", Message: "connect: no such pod", Hint: "kubectl get pods", Status: 500}
	if *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	// A second hop changes nothing but the prefix.
	again := FromError(fmt.Errorf("daemon: %w", got))
	want.Message = "daemon: connect: no such pod"
	if *again != want {
		t.Errorf("second hop = %+v, want %+v", *again, want)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		contentType, body string
		status            int
	}{
		"unknown field":  {"application/json", `{"nmae":"x"}`, 400},
		"two values":     {"application/json", `{} {}`, 400},
		"not json":       {"application/json", `name=x`, 400},
		"a form":         {"application/x-www-form-urlencoded", `{}`, 415},
		"no type":        {"", `{}`, 415},
		"larger than it": {"application/json", `{"name":"` + strings.Repeat("x", MaxBody) + `"}`, 413},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/", strings.NewReader(c.body))
			r.Header.Set("Content-Type", c.contentType)
			var v struct {
				Name string `json:"name"`
			}
			err := Read(r, &v)
			if err == nil {
				t.Fatal("accepted")
			}
			if got := FromError(err).Status; got != c.status {
				t.Errorf("status %d, want %d (%v)", got, c.status, err)
			}
		})
	}
}

func TestLines(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l := NewLines(w)
		for i := range 3 {
			if err := l.Send(i); err != nil {
				t.Error(err)
			}
		}
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	if err := ReadLines(resp, func(i int) error { got = append(got, i); return nil }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != "[0 1 2]" {
		t.Errorf("got %v", got)
	}
}

func TestLocalRefusesWebPages(t *testing.T) {
	h := Local("podnet", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }))
	for name, c := range map[string]struct {
		host, header string
		want         int
	}{
		"ours":           {"podnet", "", 204},
		"rebound name":   {"evil.example", "", 403},
		"foreign origin": {"podnet", "Origin", 403},
		"foreign page":   {"podnet", "Referer", 403},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v1/status", nil)
			r.Host = c.host
			if c.header != "" {
				r.Header.Set(c.header, "http://evil.example")
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code != c.want {
				t.Errorf("status %d, want %d", rec.Code, c.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"name":"x"}`)
	f.Add(`{"name":1}`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, s string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(s))
		r.Header.Set("Content-Type", "application/json")
		var v struct {
			Name string `json:"name"`
		}
		if err := Read(r, &v); err != nil && FromError(err).Status/100 != 4 {
			t.Errorf("Read(%q) blames the server: %v", s, err)
		}
	})
}
