package steer

import (
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	alice := header("x-user", "alice")
	long := strings.Repeat("a", MaxPattern+1)
	for name, test := range map[string]struct {
		change func(*Rule)
		want   string // what the error begins with; "": valid
	}{
		"as it is":                   {func(r *Rule) {}, ""},
		"no name":                    {func(r *Rule) { r.Name = "" }, "name: "},
		"endless name":               {func(r *Rule) { r.Name = long }, "name: "},
		"no owner":                   {func(r *Rule) { r.Owner = "" }, "owner: "},
		"owner with a line feed":     {func(r *Rule) { r.Owner = "ada\r\nX: y" }, "owner: "},
		"owner as OpenID says it":    {func(r *Rule) { r.Owner = "https://login.example#Zoë Smith" }, ""},
		"port 0":                     {func(r *Rule) { r.Port = 0 }, "port: "},
		"SCTP":                       {func(r *Rule) { r.Protocol = "sctp" }, "protocol: "},
		"no mode":                    {func(r *Rule) { r.Mode = "" }, "mode: "},
		"whole port":                 {func(r *Rule) { r.Matches = nil }, ""},
		"whole UDP port":             {func(r *Rule) { r.Protocol, r.Matches = UDP, nil }, ""},
		"requests in UDP":            {func(r *Rule) { r.Protocol = UDP }, "matches: "},
		"client by header":           {func(r *Rule) { r.ClientAddress = ClientByHeader }, ""},
		"client by header, no match": {func(r *Rule) { r.ClientAddress, r.Matches = ClientByHeader, nil }, "clientAddress: "},
		"client by proxy, no match":  {func(r *Rule) { r.ClientAddress, r.Matches = ClientByProxy, nil }, ""},
		"client of UDP": {func(r *Rule) {
			r.Protocol, r.Matches, r.ClientAddress = UDP, nil, ClientByProxy
		}, "clientAddress: "},
		"client by pigeon":  {func(r *Rule) { r.ClientAddress = "pigeon" }, "clientAddress: "},
		"16 matches":        {func(r *Rule) { r.Matches = repeat(alice, 16) }, ""},
		"17 matches":        {func(r *Rule) { r.Matches = repeat(alice, 17) }, "matches: are 17, "},
		"empty match":       {func(r *Rule) { r.Matches = []Match{alice, {}} }, "matches[1]: has no condition"},
		"32 conditions":     {conditions(31, "GET"), ""},
		"33 conditions":     {conditions(32, "GET"), "matches[0]: has more than 32 conditions"},
		"long path":         {match(path(long)), "matches[0].path: has 1025 bytes"},
		"path just fits":    {match(path(long[1:])), ""},
		"method":            {match(Match{Method: "~("}), "matches[0].method: "},
		"host":              {match(Match{Host: "~("}), "matches[0].host: "},
		"long host":         {match(Match{Host: "~" + long}), "matches[0].host: has "},
		"gRPC":              {match(Match{GRPC: "~("}), "matches[0].grpc: "},
		"header":            {match(header("x-user", "~(")), "matches[0].headers[0].value: "},
		"header without":    {match(header("", "a")), "matches[0].headers[0].name: "},
		"header of a space": {match(header("x user", "a")), "matches[0].headers[0].name: "},
		"pseudo header":     {match(header(":path", "a")), "matches[0].headers[0].name: "},
		"long header":       {match(header(long, "a")), "matches[0].headers[0].name: "},
		"Host header":       {match(header("Host", "a")), "matches[0].headers[0].name: has a pattern of its own"},
		"query":             {match(query("user", "~(")), "matches[0].query[0].value: "},
		"query without":     {match(query("", "a")), "matches[0].query[0].name: "},
		"long query":        {match(query(long, "a")), "matches[0].query[0].name: "},
		"the second one":    {match(Match{Query: []Condition{{"a", "b"}, {"c", "~["}}}), "matches[0].query[1].value: "},
		"endless work":      {match(path(`~\w{1000}\w{1000}`)), "matches[0].path: is too large"},
		"much work":         {work(4, `~^\w{240}$`), ""},
		"too much work":     {work(5, `~^\w{240}$`), "matches[4].path: is one regular expression too many"},
		"UUIDs":             {work(16, `~^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := steal("ada", 1, alice)
			test.change(&r)
			err := r.Validate()
			switch {
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)):
				t.Errorf("%v, want %s...", err, test.want)
			}
			if _, compiled := Compile([]Rule{r}); (compiled == nil) != (err == nil) {
				t.Errorf("Validate says %v, Compile %v", err, compiled)
			}
		})
	}
}

func match(m Match) func(*Rule) { return func(r *Rule) { r.Matches = []Match{m} } }

// work is n matches, each with the regular expression.
func work(n int, path string) func(*Rule) {
	return func(r *Rule) { r.Matches = repeat(Match{Path: path}, n) }
}

func repeat(m Match, n int) (all []Match) {
	for range n {
		all = append(all, m)
	}
	return all
}

func conditions(headers int, method string) func(*Rule) {
	m := Match{Method: method}
	for range headers {
		m.Headers = append(m.Headers, Condition{"x-user", "*"})
	}
	return match(m)
}
