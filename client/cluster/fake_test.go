package cluster

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/client/localapi"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// client-go keeps idle connections of closed test servers for a moment.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("internal/poll.runtime_pollWait"),
		// spdystream keeps the error of a close for ten minutes in case somebody
		// asks, and its server side, here the fake API server's, never ends a
		// stream that nobody reads.
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).shutdown"),
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).Serve"),
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).Serve.func1"),
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).Serve.func2"),
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*idleAwareFramer).monitor"),
		goleak.IgnoreAnyFunction("podnet.dev/client/cluster.(*fakeAPI).serve"))
}

// fakeAPI is an API server that knows alice and answers what a test tells it.
type fakeAPI struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	version string
	// denied permissions, as "verb resource/subresource namespace".
	denied map[string]bool
	// on answers calls by "METHOD path".
	on    map[string]http.HandlerFunc
	calls []string
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{t: t, version: "34", denied: map[string]bool{}, on: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	call := r.Method + " " + r.URL.Path
	f.calls = append(f.calls, call)
	h, version := f.on[call], f.version
	f.mu.Unlock()
	switch {
	case h != nil:
		h(w, r)
	case r.URL.Path == "/version":
		reply(w, 200, map[string]string{"major": "1", "minor": version, "gitVersion": "v1." + version + ".0"})
	case strings.HasSuffix(r.URL.Path, "/selfsubjectreviews"):
		reply(w, 201, authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: authenticationv1.UserInfo{Username: "alice"}}})
	case strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		var review authorizationv1.SelfSubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			f.t.Error(err)
		}
		a := review.Spec.ResourceAttributes
		what := strings.Trim(a.Resource+"/"+a.Subresource, "/")
		f.mu.Lock()
		review.Status.Allowed = !f.denied[fmt.Sprintf("%s %s %s", a.Verb, what, a.Namespace)]
		f.mu.Unlock()
		reply(w, 201, review)
	default:
		refuse(w, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, reason metav1.StatusReason, message string) {
	reply(w, status, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status: metav1.StatusFailure, Code: int32(status), Reason: reason, Message: message})
}

// client is alice's, after Check.
func (f *fakeAPI) client() *Client {
	f.t.Helper()
	c := openTest(f.t, f.URL, "")
	if err := c.Check(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// openTest opens a kubeconfig with the given server and user section.
func openTest(t *testing.T, server, user string) *Client {
	t.Helper()
	c, err := Open(localapi.Kube{Flags: map[string][]string{"kubeconfig": {kubeconfig(t, server, user)}}, Env: []string{"PATH=" + os.Getenv("PATH")}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kubeconfig(t *testing.T, server, user string) string {
	t.Helper()
	if user == "" {
		user = "{token: secret}"
	}
	file := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: test,
clusters: [{name: c, cluster: {server: %q}}],
contexts: [{name: test, context: {cluster: c, user: u, namespace: shop}}],
users: [{name: u, user: %s}]}`, server, user)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
