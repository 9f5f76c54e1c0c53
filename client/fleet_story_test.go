package client_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/client"
	"podnet.dev/e2e/town"
)

// TestTwoClustersAtOnce: each cluster's names are known by its alias to whichever
// proxy is asked, short names are the primary's, and the end of one leaves the
// other's open flow alone.
func TestTwoClustersAtOnce(t *testing.T) {
	t.Parallel()
	fleet := new(client.Fleet)
	place := func(name string) *place {
		w := newTown(t, "podnet-gateway-0")
		w.fleet, w.name, w.secondary = fleet, name, name != "lab"
		return w
	}
	lab, blue := place("lab").connect(client.PathAuto), place("blue").connect(client.PathAuto)
	knows := func(l *laptop, name string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := l.lookup(ctx, name)
		return err == nil
	}
	alias := func(name string) string {
		return strings.Replace(town.EchoName, "cluster.local", name+".podnet.internal", 1)
	}
	for _, l := range []*laptop{lab, blue} {
		for _, name := range []string{alias("lab"), alias("blue")} {
			if !knows(l, name) {
				t.Errorf("%s does not know %s", l.status().Name, name)
			}
		}
		if knows(l, alias("red")) {
			t.Error("there is no cluster red")
		}
	}
	if !knows(lab, town.EchoName) || knows(blue, town.EchoName) {
		t.Error("the cluster's own zone is not the primary's alone")
	}
	if got := blue.host.Resolver(); got.Primary || len(got.SearchDomains) > 0 || !slices.Contains(got.MatchDomains, "blue.podnet.internal") || slices.Contains(got.MatchDomains, "cluster.local") {
		t.Errorf("the host asks blue for %+v", got)
	}
	if got := lab.host.Resolver(); !got.Primary || !slices.Contains(got.MatchDomains, "lab.podnet.internal") || !slices.Contains(got.MatchDomains, "cluster.local") {
		t.Errorf("the host asks lab for %+v", got)
	}
	// They have the same networks, and the laptop sees those of the second elsewhere.
	if a, b := lab.status().Addresses, blue.status().Addresses; a.Mode != "direct" || b.Mode != "virtual" || !strings.Contains(b.Why, "lab") {
		t.Errorf("addresses %+v and %+v", a, b)
	}

	for _, l := range []*laptop{blue, lab} { // the new one first
		if err := l.session.SetPrimary(t.Context(), l == blue); err != nil {
			t.Fatal(err)
		}
	}
	if knows(lab, town.EchoName) || !knows(blue, town.EchoName) || !blue.host.Resolver().Primary || lab.host.Resolver().Primary {
		t.Error("blue is not primary now")
	}
	flow, err := blue.open()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	lab.leave()
	if err := echo(flow, 2*time.Second); err != nil {
		t.Errorf("lab's end cut blue's flow: %v", err)
	}
	if knows(blue, alias("lab")) || !knows(blue, alias("blue")) {
		t.Error("lab is over, and somebody does not know")
	}
}
