package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// explained demands a code, a hint and words in the message.
func explained(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	e := httpjson.FromError(err)
	if e.Code != code || e.Hint == "" {
		t.Errorf("code %q hint %q, want code %q and a hint (%v)", e.Code, e.Hint, code, err)
	}
	for _, w := range words {
		if !strings.Contains(e.Message+"\n"+e.Hint, w) {
			t.Errorf("%q and its hint %q do not say %q", e.Message, e.Hint, w)
		}
	}
	if strings.Contains(e.Message, "\n") {
		t.Errorf("more than one line: %q", e.Message)
	}
}

func TestCheck(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	want := Identity{Context: "test", Namespace: "shop", Server: f.URL, User: "alice"}
	if c.Whoami() != want {
		t.Errorf("whoami %+v, want %+v", c.Whoami(), want)
	}
}

func TestOldCluster(t *testing.T) {
	f := newFakeAPI(t)
	for minor, old := range map[string]bool{"29": true, "29+": true, "30": false, "30+": false, "34": false} {
		f.version = minor
		err := openTest(t, f.URL, "").Check(t.Context())
		if !old && err != nil {
			t.Errorf("1.%s: %v", minor, err)
		}
		if old {
			explained(t, err, localapi.CodeTooOld, "1.30", "v1.29")
		}
	}
}

func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	explained(t, openTest(t, "http://"+addr, "").Check(t.Context()), localapi.CodeUnreachable, addr, "refused")

	// Somebody accepts and says nothing.
	ln, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	explained(t, openTest(t, "http://"+ln.Addr().String(), "").Check(ctx), localapi.CodeUnreachable, "no answer in time")
}

func TestRefusedCredentials(t *testing.T) {
	f := newFakeAPI(t)
	f.on["GET /version"] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	}
	explained(t, openTest(t, f.URL, "").Check(t.Context()), localapi.CodeCredentials, f.URL)
}

func TestBadKubeconfig(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("clusters: {{{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags map[string][]string
		env   []string
		words []string
	}{
		"missing":     {map[string][]string{"kubeconfig": {"/nowhere/config"}}, nil, []string{"/nowhere/config"}},
		"garbage":     {map[string][]string{"kubeconfig": {garbage}}, nil, []string{garbage}},
		"from env":    {nil, []string{"KUBECONFIG=" + garbage}, []string{garbage}},
		"no context":  {map[string][]string{"kubeconfig": {kubeconfig(t, "http://x", "")}, "context": {"mars"}}, nil, []string{"mars"}},
		"nothing set": {nil, []string{"KUBECONFIG=" + filepath.Join(dir, "none")}, []string{"no cluster", "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(localapi.Kube{Flags: c.flags, Env: c.env}, slog.New(slog.DiscardHandler))
			explained(t, err, localapi.CodeCredentials, c.words...)
		})
	}
}

// TestFlagsTravel sets flags as a command line does and opens the cluster as
// the daemon does.
func TestFlagsTravel(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Rename(kubeconfig(t, "http://from-file:1", ""), "mine"); err != nil {
		t.Fatal(err)
	}
	flags := NewFlags()
	for name, value := range map[string]string{"kubeconfig": "mine", "server": "http://other:2", "as": "bob"} {
		if err := flags.set.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, group := range []string{"dev", "ops"} {
		if err := flags.set.Set("as-group", group); err != nil {
			t.Fatal(err)
		}
	}
	kube, err := flags.Kube([]string{"KUBECONFIG=a:b"})
	if err != nil {
		t.Fatal(err)
	}
	wd, _ := os.Getwd()
	t.Chdir("/")
	c, err := Open(kube, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if c.Server != "http://other:2" || c.config.Impersonate.UserName != "bob" || strings.Join(c.config.Impersonate.Groups, " ") != "dev ops" {
		t.Errorf("got %s as %+v", c.Server, c.config.Impersonate)
	}
	if want := "KUBECONFIG=" + filepath.Join(wd, "a") + ":" + filepath.Join(wd, "b"); kube.Env[0] != want {
		t.Errorf("environment %q, want %q", kube.Env[0], want)
	}
}

// TestExecPluginSeesTheCallersWorld: the plugin is found in the caller's PATH
// and has the caller's environment, not the daemon's.
func TestExecPluginSeesTheCallersWorld(t *testing.T) {
	f := newFakeAPI(t)
	// Credentials are for TLS only.
	secure := httptest.NewTLSServer(f.Config.Handler)
	defer secure.Close()
	var token string
	f.on["GET /version"] = func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("Authorization")
		reply(w, 200, map[string]string{"major": "1", "minor": "34"})
	}
	bin := t.TempDir()
	script := `#!/bin/sh
echo "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"$MY_PROFILE\"}}"`
	if err := os.WriteFile(filepath.Join(bin, "podnet-test-login"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	file := kubeconfig(t, secure.URL, "{exec: {apiVersion: client.authentication.k8s.io/v1, command: podnet-test-login, interactiveMode: IfAvailable}}")
	c, err := Open(localapi.Kube{Flags: map[string][]string{"kubeconfig": {file}, "insecure-skip-tls-verify": {"true"}}, Env: []string{"PATH=" + bin + ":/usr/bin:/bin", "MY_PROFILE=ada"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if token != "Bearer ada" {
		t.Errorf("the API server saw %q", token)
	}
}

// TestExecPluginIsTheSameInEveryFolder: to client-go a plugin with another environment is
// another one, and it forgets none.
func TestExecPluginIsTheSameInEveryFolder(t *testing.T) {
	file := kubeconfig(t, "https://api.test", "{exec: {apiVersion: client.authentication.k8s.io/v1, command: podnet-test-login, interactiveMode: IfAvailable}}")
	from := func(folder, last string) *Client {
		return openKube(t, localapi.Kube{Flags: map[string][]string{"kubeconfig": {file}},
			Env: []string{"HOME=/home/ada", "PWD=" + folder, "OLDPWD=" + last, "SHLVL=1", "_=/usr/bin/podnet", "MY_PROFILE=ada"}})
	}
	here, there := from("/home/ada/shop", "/home/ada").config.ExecProvider.Env, from("/tmp", "/home/ada/shop").config.ExecProvider.Env
	if !slices.Equal(here, there) || len(here) != 2 {
		t.Errorf("in one folder it has %v, in another %v", here, there)
	}
}

func TestEnrolRefused(t *testing.T) {
	const peers = "POST /apis/podnet.dev/v1alpha1/namespaces/podnet-system/peers"
	forbidden := func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "peers is forbidden")
	}
	installed := func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, metav1.APIResourceList{}) }
	enrol := func(f *fakeAPI) error {
		return f.client().CreatePeer(t.Context(), "podnet-system", "u1", v1alpha1.PeerSpec{})
	}
	t.Run("no podnet", func(t *testing.T) {
		f := newFakeAPI(t)
		f.on[peers] = forbidden
		explained(t, enrol(f), localapi.CodeNotInstalled, "podnet install")
	})
	t.Run("no permission", func(t *testing.T) {
		f := newFakeAPI(t)
		f.on[peers], f.on["GET "+api] = forbidden, installed
		f.denied["create peers podnet-system"] = true
		explained(t, enrol(f), localapi.CodeForbidden, "alice may not create peers in namespace podnet-system", "--role=podnet-connect --user=alice")
	})
	t.Run("admission", func(t *testing.T) {
		f := newFakeAPI(t)
		f.on["GET "+api] = installed
		f.on[peers] = func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 403, metav1.StatusReasonForbidden, "peers \"u1\" is forbidden: ValidatingAdmissionPolicy 'podnet-owner' denied: PODNET-OWNER: spec.user must be the caller, alice")
		}
		explained(t, enrol(f), localapi.CodeForbidden, "PODNET-OWNER: spec.user")
	})
}

func TestAccessRefused(t *testing.T) {
	const accesses = "POST /apis/podnet.dev/v1alpha1/namespaces/pay/accesses"
	f := newFakeAPI(t)
	f.on[accesses] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "PODNET-ACCESS: alice may not create pods/portforward in namespace pay")
	}
	f.denied["create pods/portforward pay"] = true
	f.denied["create accesses pay"] = true
	err := f.client().CreateAccess(t.Context(), "pay", "u1", v1alpha1.ScopeNamespace)
	explained(t, err, localapi.CodeForbidden, "alice may not create pods/portforward in namespace pay",
		"kubectl -n pay create rolebinding alice-podnet --clusterrole=podnet-user --user=alice")

	f.on[accesses] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 404, metav1.StatusReasonNotFound, `namespaces "pay" not found`)
	}
	explained(t, f.client().CreateAccess(t.Context(), "pay", "u1", v1alpha1.ScopeNamespace), localapi.CodeUsage, "no namespace pay")
}

func TestAwait(t *testing.T) {
	ready := func(status metav1.ConditionStatus, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: "because"}}
	}
	peer := func(conditions []metav1.Condition) v1alpha1.Peer {
		return v1alpha1.Peer{Status: v1alpha1.PeerStatus{Conditions: conditions, Network: &v1alpha1.Network{}, Gateways: []v1alpha1.Gateway{{Pod: "podnet-gateway-0"}}}}
	}
	t.Run("in a while", func(t *testing.T) {
		f := newFakeAPI(t)
		n := 0
		f.on["GET "+peerPath("podnet-system", "u1")] = func(w http.ResponseWriter, _ *http.Request) {
			if n++; n < 3 {
				reply(w, 200, v1alpha1.Peer{})
			} else {
				reply(w, 200, peer(ready(metav1.ConditionTrue, v1alpha1.ReasonAdmitted)))
			}
		}
		f.on["GET "+accessPath("shop", "u1")] = func(w http.ResponseWriter, _ *http.Request) {
			var a v1alpha1.Access
			if n++; n > 5 {
				a.Status.Conditions = ready(metav1.ConditionTrue, v1alpha1.ReasonAdmitted)
			}
			reply(w, 200, a)
		}
		p, err := f.client().Await(t.Context(), "podnet-system", "u1", []string{"shop"})
		if err != nil || p.Status.Gateways[0].Pod != "podnet-gateway-0" || n < 6 {
			t.Errorf("got %+v, %v after %d reads", p, err, n)
		}
	})
	for _, reason := range []string{v1alpha1.ReasonLimitReached, v1alpha1.ReasonPolicyMissing, v1alpha1.ReasonConflict, v1alpha1.ReasonExpired} {
		t.Run(reason, func(t *testing.T) {
			f := newFakeAPI(t)
			f.on["GET "+peerPath("podnet-system", "u1")] = func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, peer(ready(metav1.ConditionFalse, reason)))
			}
			_, err := f.client().Await(t.Context(), "podnet-system", "u1", nil)
			explained(t, err, localapi.CodeForbidden, "because")
		})
	}
	t.Run("never, and the pod says why", func(t *testing.T) {
		f := newFakeAPI(t)
		f.on["GET "+peerPath("podnet-system", "u1")] = func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, v1alpha1.Peer{}) }
		f.on["GET /api/v1/namespaces/podnet-system/pods/podnet-gateway-0"] = func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, waitingPod("CrashLoopBackOff", ""))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		_, err := f.client().Await(ctx, "podnet-system", "u1", nil)
		explained(t, err, localapi.CodeTimeout, "ends again and again")
	})
	t.Run("deleted", func(t *testing.T) {
		if _, err := newFakeAPI(t).client().Await(t.Context(), "podnet-system", "u1", nil); !errors.Is(err, ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
	})
}

func TestRenew(t *testing.T) {
	f := newFakeAPI(t)
	var body, contentType string
	f.on["PATCH "+peerPath("podnet-system", "u1")] = func(w http.ResponseWriter, r *http.Request) {
		raw := make([]byte, 1000)
		n, _ := r.Body.Read(raw)
		body, contentType = string(raw[:n]), r.Header.Get("Content-Type")
		reply(w, 200, v1alpha1.Peer{})
	}
	c := f.client()
	if err := c.RenewPeer(t.Context(), "podnet-system", "u1", 7); err != nil {
		t.Fatal(err)
	}
	if body != `{"spec":{"renew":7}}` || contentType != "application/merge-patch+json" {
		t.Errorf("sent %s as %s", body, contentType)
	}
	if err := c.SetCandidates(t.Context(), "podnet-system", "u1", []string{"192.0.2.7:4500"}); err != nil {
		t.Error(err)
	}
	if want := `{"spec":{"candidates":["192.0.2.7:4500"]}}`; body != want {
		t.Errorf("body %s, want %s", body, want)
	}
	if err := c.SetCandidates(t.Context(), "podnet-system", "other", nil); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if err := c.RenewPeer(t.Context(), "podnet-system", "other", 7); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	f.on["PATCH "+accessPath("pay", "u1")] = func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 403, metav1.StatusReasonForbidden, "PODNET-ACCESS: no")
	}
	f.denied["create pods/portforward pay"] = true
	var forbidden *ForbiddenError
	if err := c.RenewAccess(t.Context(), "pay", "u1", v1alpha1.ScopeNamespace, 7); !errors.As(err, &forbidden) || forbidden.Namespace != "pay" {
		t.Errorf("got %v, want a ForbiddenError about pay", err)
	}
}

// TestVirtualAddresses are there when the gateway says so, not when they are written.
func TestVirtualAddresses(t *testing.T) {
	wish := []v1alpha1.VirtualPrefix{{Real: "10.96.0.0/16", Virtual: "100.64.0.0/16"}}
	mapped := metav1.Condition{Type: v1alpha1.ConditionVirtual, Status: metav1.ConditionTrue}
	refused := metav1.Condition{Type: v1alpha1.ConditionVirtual, Status: metav1.ConditionFalse, ObservedGeneration: 2, Message: "10.96.0.0/16 is none of the cluster's"}
	for name, c := range map[string]struct {
		reads []v1alpha1.Peer // the last one again and again
		code  string
		words []string
	}{
		"mapped after a moment": {[]v1alpha1.Peer{{Spec: v1alpha1.PeerSpec{Virtual: wish}},
			{Spec: v1alpha1.PeerSpec{Virtual: wish}, Status: v1alpha1.PeerStatus{Virtual: wish, Conditions: []metav1.Condition{mapped}}}}, "", nil},
		"a gateway of before": {[]v1alpha1.Peer{{}}, localapi.CodeNotInstalled, []string{"virtual addresses", "podnet install"}},
		"refused": {[]v1alpha1.Peer{{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: v1alpha1.PeerSpec{Virtual: wish}, Status: v1alpha1.PeerStatus{Conditions: []metav1.Condition{refused}}}},
			localapi.CodeConflict, []string{"none of the cluster's", "--addresses direct"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			client := f.client()
			f.on["PATCH "+peerPath("podnet-system", "u1")] = func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if want := `{"spec":{"virtual":[{"real":"10.96.0.0/16","virtual":"100.64.0.0/16"}]}}`; string(body) != want {
					t.Errorf("body %s, want %s", body, want)
				}
				reply(w, 200, v1alpha1.Peer{})
			}
			reads := c.reads
			f.on["GET "+peerPath("podnet-system", "u1")] = func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, reads[0])
				if len(reads) > 1 {
					reads = reads[1:]
				}
			}
			p, err := client.SetVirtual(t.Context(), "podnet-system", "u1", wish)
			if c.code != "" {
				explained(t, err, c.code, c.words...)
			} else if err != nil || !slices.Equal(p.Status.Virtual, wish) {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

func waitingPod(reason, message string) *corev1.Pod {
	return &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		Image: "reg/gw:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 2}},
	}}}}
}

func TestPodTrouble(t *testing.T) {
	unschedulable := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes"}}}}
	for name, c := range map[string]struct {
		pod   *corev1.Pod
		why   string
		fatal bool
	}{
		"starting":      {waitingPod("ContainerCreating", ""), "", false},
		"pull":          {waitingPod("ErrImagePull", `failed to pull and unpack image "reg/gw:1": failed to resolve reference "reg/gw:1": reg/gw:1: not found`), "image reg/gw:1 cannot be pulled (ErrImagePull): reg/gw:1: not found", true},
		"back-off":      {waitingPod("ImagePullBackOff", `Back-off pulling image "reg/gw:1"`), "image reg/gw:1 cannot be pulled (ImagePullBackOff)", true},
		"never":         {waitingPod("ErrImageNeverPull", `Container image "reg/gw:1" is not present with pull policy of Never`), `image reg/gw:1 cannot be pulled (ErrImageNeverPull): Container image "reg/gw:1" is not present with pull policy of Never`, true},
		"crash":         {waitingPod("CrashLoopBackOff", "back-off 10s"), "it ends again and again (Error, exit status 2)", true},
		"unschedulable": {unschedulable, "no node takes its pod: 0/1 nodes", false},
	} {
		t.Run(name, func(t *testing.T) {
			why, fatal := podTrouble(c.pod)
			if why != c.why || fatal != c.fatal {
				t.Errorf("got %q, %v\nwant %q, %v", why, fatal, c.why, c.fatal)
			}
		})
	}
}

func TestSubjects(t *testing.T) {
	for user, want := range map[string]string{
		"alice":                        "--user=alice",
		"alice@corp.example":           "--user=alice@corp.example",
		"O'Neil, J":                    `--user='O'\''Neil, J'`,
		"system:serviceaccount:ci:bot": "--serviceaccount=ci:bot",
	} {
		c := &Client{Identity: Identity{User: user}}
		if got := c.subject(); got != want {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
	}
}

func TestPeerName(t *testing.T) {
	a, b := PeerName("alice", "Alice's MacBook.local"), PeerName("alice", "Alice's MacBook.local")
	if a == b || a[:10] != b[:10] || !strings.HasPrefix(a[9:], "-alice-s-macbook-local-") || len(a) > 63 {
		t.Errorf("%s and %s", a, b)
	}
}
