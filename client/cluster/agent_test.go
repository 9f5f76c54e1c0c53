package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

func agentSpec() AgentSpec {
	return AgentSpec{Image: "podnet.dev/agent:1", PullPolicy: "Never", PodUID: "uid-web-1",
		Gateways: []v1alpha1.Gateway{
			{Pod: "podnet-gateway-0", PublicKey: "K1=", ClusterEndpoints: []string{"10.0.0.1:51820", "[fd00::1]:51820"}},
			{Pod: "old", PublicKey: "K0="},
			{Pod: "podnet-gateway-1", PublicKey: "K2=", ClusterEndpoints: []string{"10.0.0.2:51820"}},
		},
		NodeAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
}

const podPatch = "PATCH /api/v1/namespaces/shop/pods/web-1/ephemeralcontainers"

func TestInjectAgent(t *testing.T) {
	f := newFakeAPI(t)
	var body []byte
	var call *http.Request
	f.on[podPatch] = func(w http.ResponseWriter, r *http.Request) {
		call = r
		body, _ = io.ReadAll(r.Body)
		reply(w, 200, aPod("web-1"))
	}
	c := f.client()
	for _, dry := range []bool{true, false} {
		name, err := c.InjectAgent(t.Context(), readPod(aPod("web-1")), agentSpec(), dry)
		if err != nil {
			t.Fatal(err)
		}
		if q := call.URL.Query(); q.Get("dryRun") == "All" != dry || call.Header.Get("Content-Type") != "application/strategic-merge-patch+json" {
			t.Errorf("dry %v: %s with %s", dry, call.URL, call.Header.Get("Content-Type"))
		}
		if !regexp.MustCompile(`^podnet-agent-[a-z2-7]{5}$`).MatchString(name) {
			t.Errorf("name %q", name)
		}
		var got struct {
			Spec struct {
				EphemeralContainers []corev1.EphemeralContainer
			}
		}
		if err := json.Unmarshal(body, &got); err != nil || len(got.Spec.EphemeralContainers) != 1 {
			t.Fatalf("%s: %v", body, err)
		}
		group := *got.Spec.EphemeralContainers[0].SecurityContext.RunAsGroup
		if group < minGroup || group > maxGroup {
			t.Errorf("group %d", group)
		}
		want := fmt.Sprintf(`{"metadata":{"uid":"uid-web-1"},"spec":{"ephemeralContainers":[{"name":%q,"image":"podnet.dev/agent:1",`+
			`"args":["--pod-uid=uid-web-1","--gateway=K1=@10.0.0.1:51820,[fd00::1]:51820","--gateway=K2=@10.0.0.2:51820","--node-addr=192.0.2.1","--node-addr=2001:db8::1"],`+
			`"resources":{},"imagePullPolicy":"Never","securityContext":{"capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]},"runAsUser":0,"runAsGroup":%d,"runAsNonRoot":false,`+
			`"readOnlyRootFilesystem":true,"allowPrivilegeEscalation":false,"seccompProfile":{"type":"RuntimeDefault"}}}]}}`, name, group)
		if string(body) != want {
			t.Errorf("wrote\n%s, want\n%s", body, want)
		}
		read := readPod(aPod("web-1", func(p *corev1.Pod) { p.Spec.EphemeralContainers = got.Spec.EphemeralContainers }))
		if a := read.LiveAgents(); len(a) != 1 || !slices.Equal(a[0].Keys, []string{"K1=", "K2="}) {
			t.Errorf("read back: %+v", a)
		}
	}
}

// TestInjectASender: an agent that takes nothing from the pod asks for nothing that
// the level restricted of Pod Security refuses.
func TestInjectASender(t *testing.T) {
	f := newFakeAPI(t)
	var got struct {
		Spec struct {
			EphemeralContainers []corev1.EphemeralContainer
		}
	}
	f.on[podPatch] = func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		reply(w, 200, aPod("web-1"))
	}
	a := agentSpec()
	a.NoRedirect = true
	if _, err := f.client().InjectAgent(t.Context(), readPod(aPod("web-1")), a, false); err != nil {
		t.Fatal(err)
	}
	e := got.Spec.EphemeralContainers[0]
	want := []string{"--pod-uid=uid-web-1", "--gateway=K1=@10.0.0.1:51820,[fd00::1]:51820", "--gateway=K2=@10.0.0.2:51820", "--no-redirect"}
	if !slices.Equal(e.Args, want) {
		t.Errorf("args %q, want %q", e.Args, want)
	}
	s := e.SecurityContext
	if *s.RunAsUser != 65532 || !*s.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Add) != 0 ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("security context %s", mustJSON(s))
	}
	read := readPod(aPod("web-1", func(p *corev1.Pod) { p.Spec.EphemeralContainers = got.Spec.EphemeralContainers }))
	if !read.Agents[0].NoRedirect {
		t.Errorf("read back: %+v", read.Agents)
	}
}

func TestInjectRefusedVerbatim(t *testing.T) {
	psa := `pods "web-1" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities (container "podnet-agent-abcde" must not include "NET_ADMIN" in securityContext.capabilities.add), ` +
		`runAsNonRoot != true (container "podnet-agent-abcde" must not set securityContext.runAsNonRoot=false), runAsUser=0 (container "podnet-agent-abcde" must not set runAsUser=0), and so on for more than three hundred bytes`
	for name, c := range map[string]struct {
		status int
		reason metav1.StatusReason
		text   string
		denied string
		hint   string
	}{
		"pod security": {403, metav1.StatusReasonForbidden, psa, "", "--via service"},
		"kyverno": {400, metav1.StatusReasonBadRequest, "admission webhook \"validate.kyverno.svc-fail\" denied the request: \n\nresource Pod/shop/web-1 was blocked due to the following policies\n\n" +
			"disallow-capabilities:\n  adding-capabilities: 'no more than the usual'\n", "", "policy"},
		"policy":  {422, metav1.StatusReasonInvalid, `pods "web-1" is forbidden: ValidatingAdmissionPolicy 'no-debug' with binding 'all' denied request: not here`, "", "policy"},
		"webhook": {500, metav1.StatusReasonInternalError, `Internal error occurred: failed calling webhook "x": context deadline exceeded`, "", "does not answer"},
		"rbac": {403, metav1.StatusReasonForbidden, `pods "web-1" is forbidden: User "alice" cannot patch resource "pods/ephemeralcontainers" in API group "" in the namespace "shop"`,
			"patch pods/ephemeralcontainers shop", "kubectl -n shop create rolebinding alice-podnet-steer --clusterrole=podnet-steer --user=alice"},
		"somebody else": {403, metav1.StatusReasonForbidden, `pods "web-1" is forbidden: so there`, "", "which policy"},
		"static pod":    {422, metav1.StatusReasonInvalid, `Pod "web-1" is invalid: Forbidden: static pods do not support ephemeral containers`, "", "describe pod web-1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			if c.denied != "" {
				f.denied[c.denied] = true
			}
			f.on[podPatch] = func(w http.ResponseWriter, _ *http.Request) { refuse(w, c.status, c.reason, c.text) }
			_, err := f.client().InjectAgent(t.Context(), readPod(aPod("web-1")), agentSpec(), true)
			words := strings.Join(strings.Fields(c.text), " ")
			explained(t, err, localapi.CodeForbidden, words, c.hint)
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Text != words || refused.ByNature != strings.Contains(refused.Advice, "--via service") {
				t.Errorf("%#v", err)
			}
		})
	}
}

func TestInjectNowhere(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	inject := func(a AgentSpec, change ...func(*corev1.Pod)) error {
		_, err := c.InjectAgent(t.Context(), readPod(aPod("web-1", change...)), a, false)
		return err
	}
	if err := inject(agentSpec()); err != ErrGone {
		t.Errorf("no pod: %v", err)
	}
	f.on[podPatch] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 422, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 422, Reason: metav1.StatusReasonInvalid,
			Message: "field is immutable", Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Field: "metadata.uid"}}}})
	}
	if err := inject(agentSpec()); err != ErrGone {
		t.Errorf("another pod of that name: %v", err)
	}
	f.on[podPatch] = func(http.ResponseWriter, *http.Request) { t.Error("it was tried") }
	if err := inject(agentSpec(), dying); err != ErrGone {
		t.Errorf("a dying pod: %v", err)
	}
	explained(t, inject(agentSpec(), func(p *corev1.Pod) { p.Spec.HostNetwork = true }), localapi.CodeForbidden, "node's network")
	old := agentSpec()
	old.Gateways = old.Gateways[1:2]
	explained(t, inject(old), localapi.CodeNotInstalled, "podnet install")
}

func TestFreeGroup(t *testing.T) {
	for range 1000 {
		g, err := freeGroup([]int64{minGroup, maxGroup})
		if err != nil || g <= minGroup || g >= maxGroup {
			t.Fatalf("%d, %v", g, err)
		}
	}
}

func TestAgentImage(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	_, _, err := c.AgentImage(t.Context(), "podnet-system", nil)
	explained(t, err, localapi.CodeNotInstalled, "podnet install")
	const at = "GET /api/v1/namespaces/podnet-system/configmaps/podnet-agent"
	f.on[at] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, corev1.ConfigMap{Data: map[string]string{"image": "example.org/agent:1", "pullPolicy": "Never"}})
	}
	if image, policy, err := c.AgentImage(t.Context(), "podnet-system", []string{"PATH=x"}); image != "example.org/agent:1" || policy != "Never" || err != nil {
		t.Errorf("image %q, %q, %v", image, policy, err)
	}
	mine := []string{"PODNET_AGENT_IMAGE=here:5000/agent@sha256:00"}
	if image, policy, err := c.AgentImage(t.Context(), "podnet-system", mine); image != "here:5000/agent@sha256:00" || policy != "" || err != nil {
		t.Errorf("image %q, %q, %v", image, policy, err)
	}
	f.on[at] = func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, metav1.StatusReasonForbidden, "no") }
	_, _, err = c.AgentImage(t.Context(), "podnet-system", nil)
	explained(t, err, localapi.CodeForbidden, "get configmaps in namespace podnet-system", "--role=podnet-connect --user=alice")
}

// agentPod serves a pod whose agent a test moves on, and the agent's log.
type agentPod struct {
	mu     sync.Mutex
	states []corev1.ContainerState // the next is shown each time the pod is read
	log    http.HandlerFunc
}

const agentName = "podnet-agent-aaaaa"

func (a *agentPod) on(f *fakeAPI) {
	f.on["GET /api/v1/namespaces/shop/pods/web-1"] = func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		reply(w, 200, aPod("web-1", withAgent(agentName, a.states[0])))
		if len(a.states) > 1 {
			a.states = a.states[1:]
		}
	}
	f.on["GET /api/v1/namespaces/shop/pods/web-1/log"] = func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); q.Get("container") != agentName || q.Get("follow") != "true" {
			f.t.Errorf("log asked for by %s", r.URL)
		}
		a.log(w, r)
	}
}

func says(lines ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, l := range lines {
			if text, ok := l.(string); ok {
				fmt.Fprintln(w, text)
			} else {
				_ = control.Write(w, l)
			}
		}
	}
}

// saysAndRuns leaves the log open, as a container's is that runs.
func saysAndRuns(lines ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		says(lines...)(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func TestAgentHello(t *testing.T) {
	want := control.Hello{Podnet: control.Version, Version: "1", PodUID: "uid-web-1", PublicKey: key.Public{1}}
	failed := control.Hello{Podnet: control.Version, PodUID: "uid-web-1", Error: "the kernel has \x1b[1mno nftables", Hint: "modprobe nf_tables on the node"}
	refuseOnce := func(then http.HandlerFunc) http.HandlerFunc {
		n := 0
		return func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 1 {
				refuse(w, 400, metav1.StatusReasonBadRequest, `container "podnet-agent-aaaaa" in pod "web-1" is waiting to start: ContainerCreating`)
				return
			}
			then(w, r)
		}
	}
	creating := waiting("ContainerCreating", "")
	for name, c := range map[string]struct {
		states []corev1.ContainerState
		log    http.HandlerFunc
		code   string // "" for a greeting
		words  []string
	}{
		"runs":                {[]corev1.ContainerState{running}, saysAndRuns(want), "", nil},
		"starts":              {[]corev1.ContainerState{{}, creating, waiting("ErrImagePull", "by chance"), running}, saysAndRuns(want), "", nil},
		"log is late":         {[]corev1.ContainerState{running}, refuseOnce(saysAndRuns(want)), "", nil},
		"runtime talks":       {[]corev1.ContainerState{running}, saysAndRuns("a warning", `{"level":"INFO","msg":"x"}`, "", want, "later"), "", nil},
		"ended after it":      {[]corev1.ContainerState{ended}, says(want), "", nil},
		"cannot":              {[]corev1.ContainerState{ended}, says(failed), localapi.CodeDeploy, []string{"the kernel has [1mno nftables", "modprobe nf_tables"}},
		"crashed":             {[]corev1.ContainerState{ended}, says("panic: oh"), localapi.CodeDeploy, []string{"exit status 1", "panic: oh", "logs web-1 -c podnet-agent-aaaaa"}},
		"crashed in silence":  {[]corev1.ContainerState{ended}, says(), localapi.CodeDeploy, []string{"exit status 1"}},
		"another version":     {[]corev1.ContainerState{running}, saysAndRuns(control.Hello{Podnet: "agent/v9", PublicKey: key.Public{1}}), localapi.CodeDeploy, []string{"agent/v9", "same version"}},
		"no key":              {[]corev1.ContainerState{running}, saysAndRuns(control.Hello{Podnet: control.Version}), localapi.CodeDeploy, []string{"no key"}},
		"no image":            {[]corev1.ContainerState{creating, waiting("ImagePullBackOff", `Back-off pulling image "podnet.dev/agent:1": ErrImagePull: not found`)}, nil, localapi.CodeDeploy, []string{"ImagePullBackOff: not found", "podnet.dev/agent:1", "podnet install --agent-image"}},
		"no image on purpose": {[]corev1.ContainerState{waiting("ErrImageNeverPull", "")}, nil, localapi.CodeDeploy, []string{"ErrImageNeverPull"}},
		"no container":        {[]corev1.ContainerState{waiting("CreateContainerError", "no space left")}, nil, localapi.CodeDeploy, []string{"no space left", "describe pod web-1"}},
		"may not read":        {[]corev1.ContainerState{running}, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, metav1.StatusReasonForbidden, "no") }, localapi.CodeForbidden, []string{"get pods/log in namespace shop", "--clusterrole=podnet-steer"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			(&agentPod{states: c.states, log: c.log}).on(f)
			got, err := f.client().AgentHello(t.Context(), readPod(aPod("web-1")), agentName)
			if c.code == "" {
				if err != nil || got != want {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			explained(t, err, c.code, c.words...)
		})
	}
}

func TestAgentHelloThatDoesNotCome(t *testing.T) {
	f := newFakeAPI(t)
	a := &agentPod{states: []corev1.ContainerState{waiting("PodInitializing", "")}, log: saysAndRuns()}
	a.on(f)
	c := f.client()
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	_, err := c.AgentHello(short(), readPod(aPod("web-1")), agentName)
	explained(t, err, localapi.CodeDeploy, "not in time", "PodInitializing")
	a.mu.Lock()
	a.states = []corev1.ContainerState{running}
	a.mu.Unlock()
	_, err = c.AgentHello(short(), readPod(aPod("web-1")), agentName)
	explained(t, err, localapi.CodeDeploy, "not in time")

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.AgentHello(canceled, readPod(aPod("web-1")), agentName); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := c.AgentHello(t.Context(), Pod{Namespace: "shop", Name: "web-1", UID: "another"}, agentName); err != ErrGone {
		t.Errorf("another pod: %v", err)
	}
	if _, err := c.AgentHello(t.Context(), Pod{Namespace: "shop", Name: "web-9", UID: "x"}, agentName); err != ErrGone {
		t.Errorf("no pod: %v", err)
	}
}

// TestAgentWhoseHelloIsGone: what the kubelet has kept of a log begins later. The
// gateway says in the status of rules which key the agent has; one that takes what
// reaches the pod is never taken for one that only sends, nor the other way round.
func TestAgentWhoseHelloIsGone(t *testing.T) {
	var later []any
	for range helloLines + 1 {
		later = append(later, `{"level":"INFO","msg":"rules in force"}`)
	}
	rule := func(mode v1alpha1.SteeringMode, uid string, k byte, ready metav1.ConditionStatus) v1alpha1.SteeringRule {
		var r v1alpha1.SteeringRule
		r.Spec.Mode, r.Spec.PodUID = mode, uid
		r.Status.Agent = &v1alpha1.SteeringAgent{PublicKey: key.Public{k}.String(), Generation: 3}
		r.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAgentReady, Status: ready}}
		return r
	}
	const steal, egress, yes, no = v1alpha1.SteeringMode("steal"), v1alpha1.SteeringEgress, metav1.ConditionTrue, metav1.ConditionFalse
	for name, c := range map[string]struct {
		sender bool
		rules  []v1alpha1.SteeringRule
		want   byte // 0: it is not known
	}{
		"somebody steers the pod":     {rules: []v1alpha1.SteeringRule{rule(steal, "another", 1, yes), rule(egress, "uid-web-1", 2, yes), rule(steal, "uid-web-1", 3, yes)}, want: 3},
		"somebody sends from there":   {sender: true, rules: []v1alpha1.SteeringRule{rule(egress, "uid-web-1", 3, yes), rule(steal, "uid-web-1", 3, yes), rule(egress, "uid-web-1", 2, yes)}, want: 2},
		"the other one's agent":       {sender: true, rules: []v1alpha1.SteeringRule{rule(egress, "uid-web-1", 3, yes), rule(steal, "uid-web-1", 3, yes)}},
		"the gateway does not see it": {rules: []v1alpha1.SteeringRule{rule(steal, "uid-web-1", 3, no)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t)
			agent := withAgent(agentName, running)
			f.on["GET /api/v1/namespaces/shop/pods/web-1"] = func(w http.ResponseWriter, _ *http.Request) {
				p := aPod("web-1", agent)
				if c.sender {
					p.Spec.EphemeralContainers[0].Args = append(p.Spec.EphemeralContainers[0].Args, "--no-redirect")
				}
				reply(w, 200, p)
			}
			f.on["GET /api/v1/namespaces/shop/pods/web-1/log"] = saysAndRuns(later...)
			f.on["GET "+steeringPath("shop", "")] = func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, v1alpha1.SteeringRuleList{Items: c.rules})
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if c.want == 0 {
				ctx, cancel = context.WithTimeout(t.Context(), 4*agentPoll)
				defer cancel()
			}
			got, err := f.client().AgentHello(ctx, readPod(aPod("web-1")), agentName)
			if c.want == 0 {
				explained(t, err, localapi.CodeDeploy, "not in time")
				return
			}
			if want := (control.Hello{Podnet: control.Version, PodUID: "uid-web-1", PublicKey: key.Public{c.want}}); got != want || err != nil {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func FuzzFindHello(f *testing.F) {
	f.Add("x\n{\"podnet\":\"agent/v1\"}\n")
	f.Add("{\"podnet\":7}\n\xff")
	f.Fuzz(func(t *testing.T, log string) {
		h, err := findHello(strings.NewReader(log))
		if err == nil && h.Podnet == "" {
			t.Errorf("%+v from %q", h, log)
		}
		if err == nil {
			if err := checkHello(Pod{UID: "x"}, h); err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		}
	})
}
