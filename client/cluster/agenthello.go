package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer/control"
)

// AgentError says why an agent that the cluster let into a pod does not work.
type AgentError struct {
	Pod, Text, Advice string
}

func (e *AgentError) Error() string {
	return fmt.Sprintf("the agent in pod %s does not start: %s", e.Pod, e.Text)
}
func (e *AgentError) Code() string { return localapi.CodeDeploy }
func (e *AgentError) Hint() string { return e.Advice }

// agentPoll is how often a pod is read while its agent starts; pulling an image
// takes seconds.
const agentPoll = 250 * time.Millisecond

// AgentHello waits until an agent has said who it is, as long as ctx lasts. Of one that
// runs and whose log does not begin with that, as the kubelet keeps no more than the last
// part of a long one, the gateway's word in its rules counts. The error is ErrGone when the pod is no more, a *ForbiddenError when its log may
// not be read, an *AgentError when there will be no agent or none came in time:
// in the pod's words, or in the agent's own, whose Hello comes along then.
func (c *Client) AgentHello(ctx context.Context, pod Pod, container string) (control.Hello, error) {
	why := "its container has not begun"
	for looks := 0; ; {
		a, err := c.agent(ctx, pod, container)
		if err != nil {
			return control.Hello{}, lateAgent(ctx, pod, why, err)
		}
		switch {
		case a.State == AgentWaiting:
			if a.Why != "" {
				why = a.Why
			}
			if hopeless(a.Why) {
				return control.Hello{}, &AgentError{Pod: pod.Name, Text: a.Why, Advice: adviceFor(pod, a)}
			}
		default:
			h, err := c.readHello(ctx, pod, container)
			if err == nil {
				return h, checkHello(pod, h)
			}
			var none noHelloError
			if errors.As(err, &none) && a.State == AgentEnded {
				return control.Hello{}, &AgentError{Pod: pod.Name, Text: join("it ended "+a.Why, none.said),
					Advice: "kubectl -n " + pod.Namespace + " logs " + pod.Name + " -c " + container}
			}
			if !errors.As(err, &none) && !apierrors.IsBadRequest(err) { // a bad request: no log yet
				return control.Hello{}, lateAgent(ctx, pod, why, c.refusedLog(pod, err))
			}
			why = "it says nothing"
			if looks++; looks > 1 { // one that has just begun would have said it
				if k, known := c.toldKey(ctx, pod, a); known {
					return control.Hello{Podnet: control.Version, PodUID: pod.UID, PublicKey: k}, nil
				}
			}
		}
		if err := sleep(ctx, agentPoll); err != nil {
			return control.Hello{}, lateAgent(ctx, pod, why, err)
		}
	}
}

// agent reads how far a container is.
func (c *Client) agent(ctx context.Context, pod Pod, container string) (AgentContainer, error) {
	p, err := c.pod(ctx, pod.Namespace, pod.Name)
	switch {
	case apierrors.IsNotFound(err):
		return AgentContainer{}, ErrGone
	case err != nil:
		return AgentContainer{}, c.explain("read pod "+pod.Name+" from", err)
	case string(p.UID) != pod.UID || finished(p):
		return AgentContainer{}, ErrGone
	}
	all := readPod(p).Agents
	i := slices.IndexFunc(all, func(a AgentContainer) bool { return a.Name == container })
	if i < 0 {
		return AgentContainer{}, &AgentError{Pod: pod.Name, Text: "the pod has no container " + container, Advice: "try again"}
	}
	return all[i], nil
}

// hopeless says whether waiting any longer is in vain. The first pull of an
// image may fail by chance (ErrImagePull); the kubelet tries again before it
// says ImagePullBackOff.
func hopeless(why string) bool {
	reason, _, _ := strings.Cut(why, ":")
	return slices.Contains([]string{"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ErrImageInspect", "RegistryUnavailable",
		"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}, reason)
}

func adviceFor(pod Pod, a AgentContainer) string {
	if strings.Contains(a.Why, "Image") || strings.Contains(a.Why, "Registry") {
		return "can the cluster's nodes pull " + a.Image + "? An administrator names another image by podnet install --agent-image"
	}
	return "kubectl -n " + pod.Namespace + " describe pod " + pod.Name
}

// lateAgent turns the end of ctx into what the pod said last.
func lateAgent(ctx context.Context, pod Pod, why string, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &AgentError{Pod: pod.Name, Text: "not in time: " + why, Advice: "kubectl -n " + pod.Namespace + " describe pod " + pod.Name}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// noHelloError says that a log ended without the line; said is what was there
// instead.
type noHelloError struct{ said string }

func (noHelloError) Error() string { return "no greeting in the log" }

const (
	// helloTime is how long one look into the log may take. An agent says its
	// line in less; what else happened to it is asked of the pod in between.
	helloTime = 5 * time.Second
	// helloLines is how far down the line may be: what the runtime itself has to
	// say may come first.
	helloLines = 20
	// maxHello is how much of a log is read, in bytes.
	maxHello = 64 << 10
)

// readHello looks for the line in a container's log.
func (c *Client) readHello(ctx context.Context, pod Pod, container string) (control.Hello, error) {
	look, cancel := withTimeoutAlways(ctx, helloTime)
	defer cancel()
	log, err := c.rest.Get().AbsPath(podPath(pod.Namespace, pod.Name)+"/log").Param("container", container).Param("follow", "true").
		Param("limitBytes", fmt.Sprint(maxHello)).Stream(look)
	if err != nil {
		return control.Hello{}, err
	}
	defer log.Close()
	h, err := findHello(log)
	if err != nil && look.Err() != nil && ctx.Err() == nil {
		return h, noHelloError{} // it may yet come
	}
	return h, err
}

// findHello reads lines until one is a Hello.
func findHello(log io.Reader) (control.Hello, error) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, maxHello)
	said := ""
	for n := 0; n < helloLines && lines.Scan(); n++ {
		var h control.Hello
		if json.Unmarshal(lines.Bytes(), &h) == nil && h.Podnet != "" {
			return h, nil
		}
		if text := oneLine(printable(lines.Text())); text != "" {
			said = text
		}
	}
	if err := lines.Err(); err != nil {
		return control.Hello{}, err
	}
	return control.Hello{}, noHelloError{said}
}

// toldKey is the key of an agent that somebody's rules for the pod have in force, as
// their gateway says: it takes an agent only from the pod's own address. An agent that
// only lets flows leave is in no other rules.
func (c *Client) toldKey(ctx context.Context, pod Pod, a AgentContainer) (k key.Public, known bool) {
	rules, err := c.SteeringRules(ctx, pod.Namespace, "")
	if err != nil {
		return k, false // the log may yet have it
	}
	keys := map[bool][]string{} // by whether they are named by rules of egress
	for _, r := range rules {
		if r.Spec.PodUID == pod.UID && r.Status.Agent != nil && meta.IsStatusConditionTrue(r.Status.Conditions, v1alpha1.ConditionAgentReady) {
			egress := r.Spec.Mode == v1alpha1.SteeringEgress
			keys[egress] = append(keys[egress], r.Status.Agent.PublicKey)
		}
	}
	for _, text := range keys[a.NoRedirect] {
		if a.NoRedirect && slices.Contains(keys[false], text) {
			continue
		}
		if k, err = key.ParsePublic(text); err == nil {
			return k, true
		}
	}
	return k, false
}

// checkHello says whether the agent is one that we can work with.
func checkHello(pod Pod, h control.Hello) error {
	switch {
	case h.Podnet != control.Version:
		return &AgentError{Pod: pod.Name, Text: fmt.Sprintf("it speaks %q and this podnet %q", oneLine(h.Podnet), control.Version),
			Advice: "bring podnet and its agent to the same version"}
	case h.Error != "":
		advice := oneLine(printable(h.Hint))
		if advice == "" {
			advice = "kubectl -n " + pod.Namespace + " describe pod " + pod.Name
		}
		return &AgentError{Pod: pod.Name, Text: oneLine(printable(h.Error)), Advice: advice}
	case h.PodUID != "" && h.PodUID != pod.UID:
		return ErrGone
	case h.PublicKey.IsZero():
		return &AgentError{Pod: pod.Name, Text: "it names no key", Advice: "bring podnet and its agent to the same version"}
	}
	return nil
}

func (c *Client) refusedLog(pod Pod, err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return ErrGone
	case apierrors.IsForbidden(err):
		return &ForbiddenError{User: c.User, Err: err, Ask: c.askSteer(pod.Namespace),
			Permission: Permission{Verb: "get", Resource: "pods", Subresource: "log", Namespace: pod.Namespace}}
	}
	return c.explain("read the log of pod "+pod.Name+" from", err)
}

func join(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return strings.Join(parts, ", saying: ")
}
