package write

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// This file lets a gateway work with CRDs that are older than itself. The API server
// refuses an apply patch as a whole for a field that the CRD does not have; without that
// field it takes the rest. What such a field would say goes unsaid.

// askAgainAfter is how long a field counts as missing: the CRDs may be brought up to date
// while the gateway runs.
const askAgainAfter = time.Hour

// undeclared are the fields of status that the cluster's CRDs do not have, as the API
// server's refusals tell.
type undeclared struct {
	log *slog.Logger

	mu     sync.Mutex
	fields map[string]map[string]time.Time // since when: by kind, by path as ".status.gateways.limits"
	told   map[string]bool                 // by kind and path
}

func newUndeclared(log *slog.Logger) *undeclared {
	return &undeclared{log: log, fields: map[string]map[string]time.Time{}, told: map[string]bool{}}
}

// notDeclared finds the fields in what the API server says of a patch, such as
// ".status.gateways[pod=\"podnet-gateway-0\"].limits: field not declared in schema".
var (
	notDeclared = regexp.MustCompile(`(\.(?:[A-Za-z0-9.]|\[[^\]]*\])+): field not declared in schema`)
	element     = regexp.MustCompile(`\[[^\]]*\]`)
)

// learn reports whether err is about fields that a kind's CRD does not have, and were not
// known to be missing. An administrator hears once of each.
func (u *undeclared) learn(kind string, err error) bool {
	if err == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	learned := false
	var untold []string
	for _, m := range notDeclared.FindAllStringSubmatch(err.Error(), -1) {
		path := element.ReplaceAllString(m[1], "")
		if !strings.HasPrefix(path, ".status.") || u.lacksLocked(kind, path) {
			continue
		}
		learned = true
		if u.fields[kind] == nil {
			u.fields[kind] = map[string]time.Time{}
		}
		u.fields[kind][path] = time.Now()
		if !u.told[kind+path] {
			u.told[kind+path] = true
			untold = append(untold, strings.TrimPrefix(path, "."))
		}
	}
	if len(untold) > 0 {
		slices.Sort(untold)
		u.log.Warn("the cluster's CRDs are older than this gateway, which goes on without the fields that they lack: podnet install of this version brings them up to date",
			"kind", kind, "fields", strings.Join(untold, ","))
	}
	return learned
}

func (u *undeclared) lacksLocked(kind, path string) bool {
	since, ok := u.fields[kind][path]
	return ok && time.Since(since) < askAgainAfter
}

// paths are those of a kind's fields that are missing, without a prefix.
func (u *undeclared) paths(kind, prefix string) (all []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for path := range u.fields[kind] {
		if below, ok := strings.CutPrefix(path, prefix+"."); ok && u.lacksLocked(kind, path) {
			all = append(all, below)
		}
	}
	return all
}

// clear zeroes what is missing of a struct, to which v points, at a path of a kind. What
// is compared with what an object has must not have more than that can have.
func (u *undeclared) clear(kind, path string, v any) {
	for _, name := range u.paths(kind, path) {
		s := reflect.ValueOf(v).Elem()
		for i := range s.NumField() {
			if tag, _, _ := strings.Cut(s.Type().Field(i).Tag.Get("json"), ","); tag == name {
				s.Field(i).SetZero()
			}
		}
	}
}

// trim is a patch without the fields that are missing, and whether it had any of them.
func (u *undeclared) trim(o *unstructured.Unstructured) (*unstructured.Unstructured, bool) {
	paths := u.paths(o.GetKind(), "")
	if len(paths) == 0 {
		return o, false
	}
	text, err := json.Marshal(o)
	if err != nil {
		return o, false
	}
	less := &unstructured.Unstructured{}
	if err := less.UnmarshalJSON(text); err != nil {
		return o, false
	}
	had := false
	for _, p := range paths {
		had = remove(less.Object, strings.Split(p, ".")) || had
	}
	return less, had
}

// remove takes a field away wherever it is below v, in every element of lists, and
// reports whether it was anywhere.
func remove(v any, path []string) (had bool) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			had = remove(e, path) || had
		}
	case map[string]any:
		if len(path) > 1 {
			return remove(v[path[0]], path[1:])
		}
		_, had = v[path[0]]
		delete(v, path[0])
	}
	return had
}
