package cluster

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"podnet.dev/client/localapi"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct{ text, selector, want string }{
		{"deploy/web", "", "deploy/web"},
		{"Deployment/web", "", "deploy/web"},
		{"deployments.apps/web", "", "deploy/web"},
		{"deployment.v1.apps/web", "", "deploy/web"},
		{"pod/web-7c9f-x2", "", "pod/web-7c9f-x2"},
		{"po/web", "", "pod/web"},
		{"PODS/web", "", "pod/web"},
		{"svc/web", "", "svc/web"},
		{"services/web", "", "svc/web"},
		{"rs/web-5d4", "", "rs/web-5d4"},
		{"replicaset.apps/web", "", "rs/web"},
		{"sts/db", "", "sts/db"},
		{"statefulsets/db", "", "sts/db"},
		{"ds/node.agent", "", "ds/node.agent"},
		{"job/load", "", "job/load"},
		{"jobs.batch/load", "", "job/load"},
		{"", "app=web,tier!=db", "-l app=web,tier!=db"},
	} {
		got, err := ParseTarget(c.text, c.selector)
		if err != nil || got.String() != c.want {
			t.Errorf("ParseTarget(%q, %q) is %s, %v, want %s", c.text, c.selector, got, err, c.want)
		}
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, c := range []struct{ text, selector string }{
		{"", ""}, {"web", ""}, {"deploy/", ""}, {"deploy/web/1", ""}, {"deploy/../secrets", ""}, {"deploy/Web", ""}, {"cm/web", ""}, {"/web", ""},
		{"deploy.batch/web", ""}, {"pod.apps/web", ""}, {"deploy/web?x=y", ""}, {"deploy/web", "app=web"}, {"", "app in"}, {"", " "},
	} {
		_, err := ParseTarget(c.text, c.selector)
		explained(t, err, localapi.CodeUsage, "deploy/web")
	}
}

func TestParsePort(t *testing.T) {
	for text, want := range map[string]PortName{
		"8080":     {8080, "", corev1.ProtocolTCP},
		"65535":    {65535, "", corev1.ProtocolTCP},
		"9000/udp": {9000, "", corev1.ProtocolUDP},
		"53/UDP":   {53, "", corev1.ProtocolUDP},
		"80/tcp":   {80, "", corev1.ProtocolTCP},
		"http":     {0, "http", corev1.ProtocolTCP},
		"dns/udp":  {0, "dns", corev1.ProtocolUDP},
		"1a":       {0, "1a", corev1.ProtocolTCP},
	} {
		if got, err := ParsePort(text); err != nil || got != want {
			t.Errorf("ParsePort(%q) is %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "65536", "-1", "+1", "80/", "80/sctp", "/udp", "HTTP", "a b", "8080:3000"} {
		_, err := ParsePort(text)
		explained(t, err, localapi.CodeUsage, "65535")
	}
}

// aPod is a pod that runs, with ports http 8080 and dns 53/udp.
func aPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "n1",
			InitContainers: []corev1.Container{
				{Name: "setup", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 1}}},
				{Name: "side", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "admin", ContainerPort: 9901}}},
			},
			Containers: []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{
				{Name: "http", ContainerPort: 8080}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.1.0.1", PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}, {IP: "fd00::1"}},
			HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}, {IP: "2001:db8::1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func ownedBy(kind, name, hash string) func(*corev1.Pod) {
	yes := true
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, UID: types.UID("uid-" + name), Controller: &yes}}
		p.Labels["pod-template-hash"] = hash
	}
}

func phase(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = phase }
}

func dying(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }

// withAgent adds an agent container in the given state.
func withAgent(name string, state corev1.ContainerState, args ...string) func(*corev1.Pod) {
	group := int64(1_234_567)
	return func(p *corev1.Pod) {
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: name, Image: "podnet.dev/agent:1", Args: args, SecurityContext: &corev1.SecurityContext{RunAsGroup: &group}}})
		p.Status.EphemeralContainerStatuses = append(p.Status.EphemeralContainerStatuses, corev1.ContainerStatus{Name: name, State: state})
	}
}

var (
	running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	ended   = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 1}}
)

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func TestReadPod(t *testing.T) {
	group := int64(7)
	got := readPod(aPod("web-1", dying,
		withAgent("podnet-agent-ccccc", running, "--gateway=K1@10.0.0.1:51820", "--gateway=K2@10.0.0.2:51820"),
		withAgent("podnet-agent-bbbbb", waiting("ImagePullBackOff", `Back-off pulling image "podnet.dev/agent:1": ErrImagePull: not there`), "--gateway=K2@10.0.0.1:51820"),
		withAgent("debugger", running),
		withAgent("podnet-agent-aaaaa", ended, "--gateway=K1@10.0.0.1:51820", "--pod-uid=x", "--no-redirect"),
		func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group} }))
	want := Pod{Namespace: "shop", Name: "web-1", UID: "uid-web-1", Ready: true, Terminating: true, Node: "n1",
		HostIP: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		IPs:    []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")},
		Ports:  []PodPort{{"http", 8080, corev1.ProtocolTCP}, {"dns", 53, corev1.ProtocolUDP}, {"admin", 9901, corev1.ProtocolTCP}},
		Agents: []AgentContainer{
			{Name: "podnet-agent-aaaaa", Image: "podnet.dev/agent:1", State: AgentEnded, Why: "(Error, exit status 1)", Keys: []string{"K1"}, NoRedirect: true},
			{Name: "podnet-agent-bbbbb", Image: "podnet.dev/agent:1", State: AgentWaiting, Why: "ImagePullBackOff: not there", Keys: []string{"K2"}},
			{Name: "podnet-agent-ccccc", Image: "podnet.dev/agent:1", State: AgentRunning, Keys: []string{"K1", "K2"}},
		},
		groups: []int64{7, 1_234_567, 1_234_567, 1_234_567, 1_234_567}, labels: labels.Set{"app": "web"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v, want\n%+v", got, want)
	}
	live := got.LiveAgents()
	if len(live) != 2 || live[0].Name != "podnet-agent-bbbbb" || live[0].Knows([]string{"K1"}) || !live[1].Knows([]string{"K0", "K1"}) || live[1].Knows(nil) {
		t.Errorf("live: %+v", live)
	}
}

func candidates(pods ...*corev1.Pod) []candidate {
	var all []candidate
	for _, p := range pods {
		_, c, err := readCandidate(mustJSON(p))
		if err != nil {
			panic(err)
		}
		all = append(all, c)
	}
	return all
}

func TestResolveFindsTheTargetsPods(t *testing.T) {
	web := &owner{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "uid-web"}}
	found := candidates(
		aPod("web-b", ownedBy("ReplicaSet", "web-5d4", "5d4")),
		aPod("web-a", ownedBy("ReplicaSet", "web-77f", "77f"), dying),
		aPod("web-done", ownedBy("ReplicaSet", "web-77f", "77f"), phase(corev1.PodFailed)),
		aPod("canary", ownedBy("ReplicaSet", "web-canary-5d4", "5d4")),
		aPod("set-0", ownedBy("StatefulSet", "web", "")),
		aPod("alone"),
		aPod("load-1", ownedBy("Job", "web", ""), phase(corev1.PodSucceeded)),
	)
	for name, c := range map[string]struct {
		target Target
		owner  *owner
		want   string
	}{
		"deployment":   {Target{Kind: "deploy", Name: "web"}, web, "web-a web-b"},
		"replica set":  {Target{Kind: "rs", Name: "web-77f"}, &owner{ObjectMeta: metav1.ObjectMeta{Name: "web-77f", UID: "uid-web-77f"}}, "web-a"},
		"stateful set": {Target{Kind: "sts", Name: "web"}, web, "set-0"},
		"service":      {Target{Kind: "svc", Name: "web"}, web, "alone canary set-0 web-a web-b"},
		"selector":     {Target{Selector: "app=web"}, nil, "alone canary set-0 web-a web-b"},
	} {
		s := resolve(c.target, "shop", PortName{Number: 8080, Protocol: corev1.ProtocolTCP}, c.owner, found)
		var names []string
		for _, p := range s.Pods {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != c.want || s.Err != nil || len(s.Port) != len(s.Pods) {
			t.Errorf("%s: %s (%v, ports %v), want %s", name, got, s.Err, s.Port, c.want)
		}
	}
}

func TestResolveSaysWhatIsGone(t *testing.T) {
	for _, target := range []Target{{Kind: "deploy", Name: "web"}, {Kind: "pod", Name: "web"}} {
		s := resolve(target, "shop", PortName{Number: 80}, nil, nil)
		var none *NoTargetError
		if !errors.As(s.Err, &none) {
			t.Errorf("%s: %v", target, s.Err)
		}
		explained(t, s.Err, localapi.CodeUsage, "no "+target.Kind+"/web in namespace shop", "kubectl -n shop get")
	}
	if s := resolve(Target{Selector: "app=web"}, "shop", PortName{Name: "http"}, nil, nil); s.Err != nil {
		t.Errorf("nobody yet: %v", s.Err)
	}
}

func service(ports ...corev1.ServicePort) *owner {
	o := &owner{}
	o.Spec.Ports, o.Spec.ClusterIP = ports, "10.96.0.1"
	return o
}

func TestPortOf(t *testing.T) {
	pod := readPod(aPod("web"))
	web := service(corev1.ServicePort{Name: "web", Port: 80, TargetPort: intstr.FromString("http")}, corev1.ServicePort{Name: "raw", Port: 81, TargetPort: intstr.FromInt32(7000)},
		corev1.ServicePort{Name: "names", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromString("dns")}, corev1.ServicePort{Name: "same", Port: 82},
		corev1.ServicePort{Name: "none", Port: 83, TargetPort: intstr.FromString("nothing")})
	headless := service(web.Spec.Ports...)
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	for _, c := range []struct {
		owner *owner
		port  string
		want  uint16
	}{
		{nil, "8080", 8080},
		{nil, "1", 1},
		{nil, "http", 8080},
		{nil, "admin", 9901},
		{nil, "http/udp", 0},
		{nil, "dns/udp", 53},
		{nil, "dns", 0},
		{web, "80", 8080},
		{web, "web", 8080},
		{web, "81", 7000},
		{web, "raw", 7000},
		{web, "82", 82},
		{web, "53/udp", 53},
		{web, "names/udp", 53},
		{web, "names", 0},
		{web, "83", 0},
		{web, "none", 0},
		{web, "8080", 8080}, // the pods' own port, which no port of the Service is called
		{web, "9999", 0},
		{web, "http", 8080}, // a container's name
		{headless, "80", 80},
		{headless, "web", 8080},
		{headless, "9999", 9999},
		{service(), "9999", 9999},
	} {
		p, err := ParsePort(c.port)
		if err != nil {
			t.Fatal(err)
		}
		if got := portOf(pod, p, c.owner); got != c.want {
			t.Errorf("%s of %+v is %d, want %d", c.port, c.owner, got, c.want)
		}
	}
}

func TestNoPodHasThePort(t *testing.T) {
	found := candidates(aPod("web"), aPod("web-2"))
	s := resolve(Target{Selector: "app=web"}, "shop", PortName{Name: "grpc", Protocol: corev1.ProtocolTCP}, nil, found)
	explained(t, s.Err, localapi.CodeUsage, "-l app=web has no port grpc", "http (8080), dns (53/udp), admin (9901)")
	if len(s.Pods) != 2 {
		t.Errorf("%d pods", len(s.Pods))
	}
	svc := Target{Kind: "svc", Name: "web"}
	s = resolve(svc, "shop", PortName{Number: 9, Protocol: corev1.ProtocolTCP}, service(corev1.ServicePort{Port: 80}), found)
	explained(t, s.Err, localapi.CodeUsage, "svc/web has no port 9", "it has 80")
	// One pod of an old version lacks it; the others are steered.
	old := aPod("old", func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil })
	s = resolve(Target{Selector: "app=web"}, "shop", PortName{Name: "http", Protocol: corev1.ProtocolTCP}, nil, candidates(aPod("web"), old))
	if want := map[string]uint16{"uid-web": 8080}; s.Err != nil || !reflect.DeepEqual(s.Port, want) {
		t.Errorf("%v, ports %v", s.Err, s.Port)
	}
}
