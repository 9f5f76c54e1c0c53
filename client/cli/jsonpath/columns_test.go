package jsonpath

import (
	"strings"
	"testing"
)

func TestColumns(t *testing.T) {
	for spec, want := range map[string]string{
		"NAME:.name,RX:.rx":             "NAME   RX\nlab    123456789\nblue   7\n",
		"NAME:name,ROUTES:{.routes[*]}": "NAME   ROUTES\nlab    10.96.0.0/12,10.244.0.0/16\nblue   <none>\n",
		"ROUTES:.routes,NAME:.name":     "ROUTES                             NAME\n[\"10.96.0.0/12\",\"10.244.0.0/16\"]   lab\n<none>                             blue\n",
		"GONE:.gone":                    "GONE\n<none>\n<none>\n",
		":.name":                        "\nlab\nblue\n",
		"A:{.name} at {.rtt}":           "A\nlab at 1.5\nblue at 20\n",
	} {
		c, err := ParseColumns(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		var got strings.Builder
		if err := c.Print(&got, document, "sessions"); err != nil || got.String() != want {
			t.Errorf("%s:\n%s%v, want\n%s", spec, got.String(), err, want)
		}
	}
}

// TestColumnsGoOn has documents come one after the other, each a row.
func TestColumnsGoOn(t *testing.T) {
	c, err := ParseColumns("NAME:.name,TEXT:.text,N:.n")
	if err != nil {
		t.Fatal(err)
	}
	type event struct {
		Name string `json:"name"`
		Text string `json:"text,omitempty"`
		N    int    `json:"n"`
	}
	var got strings.Builder
	for _, e := range []event{{"one", "", 1}, {"käse", "two\nlines\x1b[2J", 2}, {"x", "y", 3}} {
		if err := c.Print(&got, e, ""); err != nil {
			t.Fatal(err)
		}
	}
	want := "NAME   TEXT     N\none    <none>   1\nkäse   two lines [2J   2\nx      y               3\n"
	if got.String() != want {
		t.Errorf("got\n%s, want\n%s", got.String(), want)
	}
}

func TestWrongColumns(t *testing.T) {
	for _, spec := range []string{"", "NAME", "NAME:", "NAME:.name,", "NAME:{.name", ".name"} {
		if _, err := ParseColumns(spec); err == nil {
			t.Errorf("%q is columns", spec)
		}
	}
	c, err := ParseColumns("NAME:.name,ROUTE:.routes[2]")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := c.Print(&got, document, "sessions"); err == nil || !strings.HasPrefix(err.Error(), "ROUTE: ") || got.Len() > 0 {
		t.Errorf("%v, and printed %q", err, got.String())
	}
	if err := c.Print(&got, document, "nobody"); err == nil {
		t.Error("there is no such list")
	}
}
