package steer

import (
	"errors"
	"math/rand/v2"
	"testing"
)

func TestClash(t *testing.T) {
	alice, bob := header("x-user", "alice"), header("x-user", "bob")
	aliceByPath := Match{Path: "/api/*", Headers: alice.Headers}
	for name, test := range map[string]struct {
		ada, bo []Match
		want    bool
	}{
		"disjoint headers":           {[]Match{alice}, []Match{bob}, false},
		"equal headers":              {[]Match{alice}, []Match{header("X-User", "alice")}, true},
		"whole ports":                {nil, nil, true},
		"header in a whole port":     {nil, []Match{alice}, true},
		"exact in a glob":            {[]Match{header("x-user", "al*")}, []Match{alice}, true},
		"exact in an expression":     {[]Match{header("x-user", "~^al")}, []Match{alice}, true},
		"exact beside an expression": {[]Match{header("x-user", "~^al")}, []Match{bob}, false},
		"glob in a glob":             {[]Match{path("/*")}, []Match{path("/api/*")}, true},
		"path in everything":         {[]Match{path("*")}, []Match{alice}, true},
		"one condition more":         {[]Match{alice}, []Match{aliceByPath}, true},
		"overlap":                    {[]Match{alice}, []Match{path("/api/*")}, false},
		"overlap of globs":           {[]Match{path("/a*")}, []Match{path("*a")}, false},
		"one of two":                 {[]Match{alice}, []Match{alice, bob}, true},
		"one of two each":            {[]Match{alice, path("/a")}, []Match{alice, bob}, false},
		"each in one":                {[]Match{path("/*")}, []Match{path("/a"), path("/b")}, true},
		"host in any case":           {[]Match{{Host: "WEB.*"}}, []Match{{Host: "web.shop"}}, true},
		"query, case matters":        {[]Match{query("user", "a")}, []Match{query("User", "a")}, false},
		"query is no header":         {[]Match{query("user", "a")}, []Match{header("user", "a")}, false},
		"methods":                    {[]Match{{Method: "P*"}}, []Match{{Method: "POST"}}, true},
		"gRPC":                       {[]Match{{GRPC: "shop.*"}}, []Match{{GRPC: "shop.Cart/*"}}, true},
		"gRPC is a POST":             {[]Match{{Method: "POST"}}, []Match{{GRPC: "shop.Cart/*"}}, true},
		"gRPC is no GET":             {[]Match{{Method: "GET"}}, []Match{{GRPC: "shop.Cart/*"}}, false},
		"gRPC by its path":           {[]Match{path("/shop.*")}, []Match{{GRPC: "shop.Cart/Add"}}, true},
		"path that is no gRPC":       {[]Match{path("/shop.Cart/Add")}, []Match{{GRPC: "shop.*"}}, false},
		"gRPC by expression":         {[]Match{path("/*")}, []Match{{GRPC: "~Cart"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ada, bo := steal("ada", 1, test.ada...), steal("bo", 2, test.bo...)
			err := Clash(bo, ada)
			var clash *ClashError
			if errors.As(err, &clash) != test.want || !test.want && err != nil {
				t.Fatalf("%v", err)
			}
			if test.want && *clash != (ClashError{Rule: "ada-web", Owner: "ada", Protocol: TCP, Port: 8080}) {
				t.Errorf("%+v", clash)
			}
			if again := Clash(ada, bo); (again == nil) != (err == nil) {
				t.Errorf("the other way round: %v", again)
			}
		})
	}
}

func TestClashIsAboutOthersAndTheSamePort(t *testing.T) {
	ada := steal("ada", 1)
	for name, change := range map[string]func(*Rule){
		"own rule":       func(r *Rule) { r.Owner = "ada" },
		"other port":     func(r *Rule) { r.Port++ },
		"other protocol": func(r *Rule) { r.Protocol = UDP },
		"mirror":         func(r *Rule) { r.Mode = Mirror },
	} {
		bo := steal("bo", 2)
		change(&bo)
		if err := errors.Join(Clash(bo, ada), Clash(ada, bo)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClashNeedsValidRules(t *testing.T) {
	ada, bo := steal("ada", 1), steal("bo", 2, path("~("))
	var clash *ClashError
	for _, err := range []error{Clash(ada, bo), Clash(bo, ada)} {
		if err == nil || errors.As(err, &clash) {
			t.Errorf("%v", err)
		}
	}
}

// TestClashIsTrue: of two rules that clash, one has all requests of the other.
func TestClashIsTrue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	heads := randomHeads(r, 300)
	clashes := 0
	for range 2000 {
		ada, bo := randomRule(r, "ada"), randomRule(r, "bo")
		err := Clash(bo, ada)
		if (err == nil) != (Clash(ada, bo) == nil) {
			t.Fatalf("only one way: %+v, %+v", ada, bo)
		}
		if err == nil {
			continue
		}
		clashes++
		onlyAda, onlyBo := false, false
		a, b := compile(t, ada), compile(t, bo)
		for _, h := range heads {
			ours, theirs := a.Decide(h).Steal != nil, b.Decide(h).Steal != nil
			onlyAda = onlyAda || ours && !theirs
			onlyBo = onlyBo || theirs && !ours
		}
		if onlyAda && onlyBo {
			t.Fatalf("each has requests of its own: %+v, %+v", ada, bo)
		}
	}
	if clashes < 100 {
		t.Errorf("%d clashes show nothing", clashes)
	}
}
