package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

// AgentImage is what to start in pods, and how to pull it: what the
// administrator wrote into the ConfigMap podnet-agent beside the gateway, which
// the gateway itself may not write. PODNET_AGENT_IMAGE in the environment env
// goes before it, for who tries out an agent of their own.
func (c *Client) AgentImage(ctx context.Context, namespace string, env []string) (image, pullPolicy string, err error) {
	if image := lookup(env, "PODNET_AGENT_IMAGE"); image != "" {
		return image, "", nil
	}
	var m corev1.ConfigMap
	err = c.get(ctx, "/api/v1/namespaces/"+namespace+"/configmaps/podnet-agent", &m)
	switch {
	case apierrors.IsNotFound(err), err == nil && m.Data["image"] == "":
		return "", "", c.outdated("steer")
	case apierrors.IsForbidden(err):
		return "", "", &ForbiddenError{User: c.User, Err: err, Ask: c.askConnect(namespace),
			Permission: Permission{Verb: "get", Resource: "configmaps", Namespace: namespace, Name: "podnet-agent"}}
	case err != nil:
		return "", "", c.explain("read which agent to start from", err)
	}
	return m.Data["image"], m.Data["pullPolicy"], nil
}

// AgentSpec is how to start an agent.
type AgentSpec struct {
	Image string
	// PullPolicy is Always, IfNotPresent, Never, or empty for the cluster's own.
	PullPolicy string
	PodUID     string
	// Gateways are all there are; those that do not say at which addresses pods
	// reach them are left out.
	Gateways []v1alpha1.Gateway
	// NodeAddrs are where the kubelet's probes come from.
	NodeAddrs []netip.Addr
	// NoRedirect starts one that only sends for a laptop, and takes nothing from
	// the pod: it needs no capability, and is let in where Pod Security is
	// restricted.
	NoRedirect bool
}

// noRedirect is the argument of AgentSpec.NoRedirect.
const noRedirect = "--no-redirect"

// args are what the agent is called with: public data only, for whoever may
// read the pod may read them.
func (s AgentSpec) args() []string {
	args := []string{"--pod-uid=" + s.PodUID}
	for _, g := range s.Gateways {
		if len(g.ClusterEndpoints) > 0 {
			args = append(args, "--gateway="+g.PublicKey+"@"+strings.Join(g.ClusterEndpoints, ","))
		}
	}
	if s.NoRedirect {
		return append(args, noRedirect)
	}
	for _, a := range s.NodeAddrs {
		args = append(args, "--node-addr="+a.String())
	}
	return args
}

// gatewayKeys are the keys in an agent's args.
func gatewayKeys(args []string) []string {
	var keys []string
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "--gateway="); ok {
			key, _, _ := strings.Cut(v, "@")
			keys = append(keys, key)
		}
	}
	return keys
}

// RefusedError says that the cluster does not let an agent into a pod. Text is
// the cluster's own, on one line; Advice is ours.
type RefusedError struct {
	Pod, Text, Advice string
	// ByNature says that no credentials of ours would help: a policy keeps agents
	// out, or the pod is none for them.
	ByNature bool
	Err      error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the cluster lets no agent into pod %s: %s", e.Pod, e.Text)
}
func (e *RefusedError) Unwrap() error { return e.Err }
func (e *RefusedError) Code() string  { return localapi.CodeForbidden }
func (e *RefusedError) Hint() string  { return e.Advice }

// Groups of agents. Nobody else has them by custom: what the agent itself sends
// is told from the application's traffic by its group.
const (
	minGroup = 1_000_000
	maxGroup = 1_999_999
)

// InjectAgent adds an agent to a pod, or asks only whether it might (dryRun),
// and returns the name of its container. The error is ErrGone when the pod is no
// more, a *RefusedError when the cluster, or the pod's nature, says no.
func (c *Client) InjectAgent(ctx context.Context, pod Pod, a AgentSpec, dryRun bool) (container string, err error) {
	if err := mayHold(pod); err != nil {
		return "", err
	}
	if len(gatewayKeys(a.args())) == 0 {
		return "", c.outdated("steer") // a gateway that does not say where pods reach it
	}
	e, err := agentContainer(pod, a)
	if err != nil {
		return "", err
	}
	// The UID makes it fail for another pod of the same name.
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID},
		"spec": map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{e}}})
	if err != nil {
		return "", err
	}
	ctx, cancel := withTimeout(ctx, requestTimeout)
	defer cancel()
	req := c.rest.Patch(types.StrategicMergePatchType).AbsPath(podPath(pod.Namespace, pod.Name)+"/ephemeralcontainers").
		Param("fieldManager", "podnet").SetHeader("Accept", "application/json").Body(patch)
	if dryRun {
		req = req.Param("dryRun", "All")
	}
	err = req.Do(ctx).Error()
	switch {
	case err == nil:
		return e.Name, nil
	case apierrors.IsNotFound(err), otherPod(err):
		return "", ErrGone
	}
	return "", c.refusedAgent(ctx, pod, a, err)
}

// otherPod says whether the API server found another UID than ours.
func otherPod(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// mayHold refuses pods in which an agent would do harm or nothing.
func mayHold(pod Pod) error {
	switch {
	case pod.HostNetwork:
		return &RefusedError{Pod: pod.Name, Text: "it has its node's network, which other programs share",
			Advice: "only pods with a network of their own can be steered; --via service steers their Service", ByNature: true}
	case pod.Terminating:
		return ErrGone
	}
	return nil
}

func agentContainer(pod Pod, a AgentSpec) (corev1.EphemeralContainer, error) {
	group, err := freeGroup(pod.groups)
	if err != nil {
		return corev1.EphemeralContainer{}, err
	}
	// Kubernetes gives capabilities to nobody but user 0.
	yes, no, user, plain := true, false, int64(0), false
	caps := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}}
	if a.NoRedirect {
		user, plain, caps.Add = plainUser, true, nil
	}
	return corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: agentPrefix + suffix(), Image: a.Image, ImagePullPolicy: corev1.PullPolicy(a.PullPolicy), Args: a.args(),
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: &user, RunAsNonRoot: &plain, RunAsGroup: &group, Capabilities: caps,
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}}, nil
}

// plainUser is whom an agent without capabilities runs as: nobody in particular.
const plainUser = 65532

// freeGroup is a random group that is not taken.
func freeGroup(taken []int64) (int64, error) {
	for {
		n, err := rand.Int(rand.Reader, big.NewInt(maxGroup-minGroup+1))
		if err != nil {
			return 0, err
		}
		if g := minGroup + n.Int64(); !slices.Contains(taken, g) {
			return g, nil
		}
	}
}

// suffix tells the agents of a pod apart.
func suffix() string { return strings.ToLower(rand.Text()[:5]) }

func podPath(namespace, name string) string {
	return "/api/v1/namespaces/" + namespace + "/pods" + slash(name)
}

// refusedAgent says whose no it is. Who refuses says it in many words, and each
// of them matters to whoever has to change it.
func (c *Client) refusedAgent(ctx context.Context, pod Pod, a AgentSpec, err error) error {
	text := verbatim(err)
	refused := &RefusedError{Pod: pod.Name, Text: text, Err: err}
	switch {
	case strings.Contains(text, "violates PodSecurity") && a.NoRedirect:
		refused.Advice = "this agent asks for nothing that Pod Security refuses: ask an administrator whether the pod itself is what the namespace's level forbids"
	case strings.Contains(text, "violates PodSecurity"):
		refused.ByNature = true
		refused.Advice = "an agent needs NET_ADMIN in the pod, which Pod Security grants at its level privileged only: ask an administrator whether namespace " +
			pod.Namespace + " may have it, or steer the pods' Service by --via service"
	case strings.Contains(text, "failed calling webhook"):
		refused.Advice = "an admission webhook of the cluster does not answer: try again, or tell an administrator"
	case strings.Contains(text, "denied the request"), strings.Contains(text, "denied request"):
		refused.ByNature = true
		refused.Advice = "a policy of the cluster forbids it: ask whoever made it for an exception for podnet's agent, or steer the pods' Service by --via service"
	case apierrors.IsForbidden(err):
		refused.Advice = "ask an administrator for: " + c.askSteer(pod.Namespace)
		if c.missing(ctx, []Permission{{Verb: "patch", Resource: "pods", Subresource: "ephemeralcontainers", Namespace: pod.Namespace, Name: pod.Name}}) == nil {
			refused.Advice = "ask an administrator which policy forbids it"
		}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsMethodNotSupported(err):
		refused.Advice = "kubectl -n " + pod.Namespace + " describe pod " + pod.Name + " says what kind of pod it is"
	default:
		return c.explain("start an agent in pod "+pod.Name+" at", err)
	}
	return refused
}

// maxRefusal is how many bytes of a refusal are kept; the longest seen are of
// policy engines that list each of their rules.
const maxRefusal = 4096

// verbatim is all that the server said, on one line and without what would
// steer a terminal.
func verbatim(err error) string {
	s := strings.Join(strings.Fields(printable(err.Error())), " ")
	if len(s) > maxRefusal {
		s = strings.ToValidUTF8(s[:maxRefusal], "") + "..."
	}
	return s
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return -1
	}, s)
}
