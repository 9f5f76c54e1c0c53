package steer

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	grpc := []string{"Content-Type: application/grpc+proto"}
	for _, test := range []struct {
		match Match
		head  *Head
		want  bool
	}{
		{header("x-user", "alice"), get("/", "X-USER: alice"), true},
		{header("X-User", "alice"), get("/", "x-user: alice"), true},
		{header("x-user", "alice"), get("/", "x-user: Alice"), false},
		{header("x-user", "alice"), get("/", "x-user: bob", "x-user: alice"), true},
		{header("x-user", "alice"), get("/", "x-users: alice"), false},
		{header("x-user", "*"), get("/", "x-user: "), true},
		{header("x-user", "*"), get("/"), false},
		{header("x-user", ""), get("/", "x-user: "), true},
		{header("x-user", ""), get("/", "x-user: alice"), false},
		{header("x-user", ""), get("/"), false},
		{header("kind", "a"), get("/", "\u212aind: a"), false}, // the Kelvin sign folds to k
		{header("baggage", "*user=alice*"), get("/", "baggage: tenant=x,user=alice;p=1"), true},
		{header("x-user", "~^al"), get("/", "x-user: alice"), true},
		{header("x-user", "~^al$"), get("/", "x-user: alice"), false},
		{Match{Headers: []Condition{{"a", "1"}, {"b", "2"}}}, get("/", "a: 1", "b: 2"), true},
		{Match{Headers: []Condition{{"a", "1"}, {"b", "2"}}}, get("/", "a: 1", "b: 3"), false},

		{query("user", "alice"), get("/?user=alice"), true},
		{query("user", "alice"), get("/?a=1&user=alice&b"), true},
		{query("user", "alice"), get("/?user=bob&user=alice"), true},
		{query("user", "alice"), get("/?User=alice"), false},
		{query("user", "al ice"), get("/?u%73er=al+%69ce"), true},
		{query("user", "a=b"), get("/?user=a=b"), true},
		{query("user", ""), get("/?user"), true},
		{query("user", "*"), get("/?users=1"), false},
		{query("user", "*"), get("/?user=%zz"), false},
		{query("user", "*"), get("/?user=a;b"), false},
		{query("user", "*"), get("/"), false},

		{path("/api/*"), get("/api/"), true},
		{path("/api/*"), get("/api"), false},
		{path("/api"), get("/api?x=/y"), true},
		{path("/api"), get("/%61pi"), false},
		{path("/api"), get("/API"), false},
		{path("/api"), get("http://web.shop/api?x"), true},
		{path("/"), get("http://web.shop?x"), true},
		{path("*"), send("CONNECT", "web.shop:80"), true},
		{path("/*"), send("CONNECT", "web.shop:80"), false},
		{path("~^\\*$"), send("OPTIONS", "*"), true},

		{Match{Host: "web.shop"}, get("/"), true},
		{Match{Host: "WEB.*"}, get("/"), true},
		{Match{Host: "~^WEB\\.[a-z]+$"}, get("/"), true},
		{Match{Host: "other"}, get("/"), false},
		{Match{Host: "other"}, get("http://me:x@OTHER:80/"), true},
		{Match{Host: "web.shop"}, get("http://other/"), false},
		{Match{Host: "[::1]"}, &Head{Method: "GET", Target: "/", Host: "[::1]:80"}, true},
		{Match{Host: "[::1]"}, &Head{Method: "GET", Target: "/", Host: "[::1]"}, true},
		{Match{Host: "*"}, &Head{Method: "GET", Target: "/"}, true},
		{Match{Host: "k"}, &Head{Method: "GET", Target: "/", Host: "\u212a"}, false},

		{Match{Method: "GET"}, get("/"), true},
		{Match{Method: "get"}, get("/"), false},
		{Match{Method: "~^(PUT|POST)$"}, send("PUT", "/"), true},
		{Match{Method: "P*"}, get("/"), false},

		{Match{GRPC: "shop.Cart/Add"}, send("POST", "/shop.Cart/Add", grpc...), true},
		{Match{GRPC: "shop.Cart/*"}, send("POST", "/shop.Cart/Add", grpc...), true},
		{Match{GRPC: "shop.Cart/*"}, send("POST", "/shop.Cart/Add", "content-type: Application/gRPC"), true},
		{Match{GRPC: "shop.Cart/*"}, send("POST", "/shop.Order/Add", grpc...), false},
		{Match{GRPC: "*"}, send("POST", "/shop.Cart/Add", "content-type: application/json"), false},
		{Match{GRPC: "*"}, send("POST", "/", grpc...), false},
		{Match{GRPC: "*"}, get("/shop.Cart/Add", grpc...), false},
		{Match{GRPC: "*", Host: "web.*"}, send("POST", "/shop.Cart/Add", grpc...), true},
	} {
		t.Run(fmt.Sprintf("%+v", test.match), func(t *testing.T) {
			d := compile(t, steal("ada", 1, test.match)).Decide(test.head)
			if got := d.Steal != nil; got != test.want {
				t.Errorf("%s %s %+v: %v, want %v", test.head.Method, test.head.Target, test.head.Fields, got, test.want)
			}
		})
	}
}

// FuzzTarget holds our reading of a target against the one of net/http.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{
		"/", "/a%62?x=/y", "*", "http://me@OTHER:80/p?q", "http://a?q", "//a/b", "a:80", "http://[::1]:80", "/a?b://c/d", "mailto:a",
	} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if strings.ContainsAny(target, " \r\n\t") {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: Web.shop\r\n\r\n")))
		if err != nil {
			return
		}
		if !strings.HasPrefix(target, "/") && target != "*" && r.URL.Host == "" {
			return // none of the forms there are, like mailto:a or a:/
		}
		got := newRequest(&Head{Method: "GET", Target: target, Host: "Web.shop"})
		if strings.Contains(got.host, "%") {
			return // net/http decodes what is not to be encoded
		}
		if want := hostname(r.Host); got.host != want {
			t.Errorf("host %q, want %q", got.host, want)
		}
		if got.query != r.URL.RawQuery {
			t.Errorf("query %q, want %q", got.query, r.URL.RawQuery)
		}
		path, err := url.PathUnescape(got.path)
		if want := r.URL.Path; err != nil || path != want && (path != "/" || want != "") {
			t.Errorf("path %q, %v; want %q", got.path, err, want)
		}
	})
}
