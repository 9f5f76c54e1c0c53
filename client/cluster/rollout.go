package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
)

// rollout waits until every gateway is ready. It gives up before the time is
// over when waiting cannot help: an image that cannot be had, a pod that the
// cluster refuses to make.
func (c *Client) rollout(ctx context.Context, namespace, image string, say func(string)) error {
	told := ""
	hopeless := 0
	for {
		var set appsv1.StatefulSet
		err := c.get(ctx, "/apis/apps/v1/namespaces/"+namespace+"/statefulsets/"+deploy.StatefulSetName, &set)
		if err == nil && statefulSetDone(&set) {
			say("the gateway is ready")
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return c.explain("read the StatefulSet from", err)
		}
		why, fatal := c.trouble(ctx, namespace)
		if why != "" && why != told {
			say(why)
			told = why
		}
		// Twice in a row: the first pull may fail by chance, and the kubelet
		// tries again at once.
		if hopeless++; !fatal {
			hopeless = 0
		}
		if hopeless >= 3 {
			return notReady(why, namespace, image)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			if told == "" {
				told = "it did not say why"
			}
			return notReady(told, namespace, image)
		}
	}
}

func notReady(why, namespace, image string) error {
	hint := "kubectl -n " + namespace + " describe pods; --timeout waits longer"
	if strings.Contains(why, image) {
		hint = "name an image that the cluster can pull by --image, with --image-pull-policy Never if its nodes have it already"
	}
	return &localapi.Error{Code: localapi.CodeDeploy, Message: "the gateway does not start: " + why, Hint: hint}
}

// trouble says what keeps the gateway from starting, and whether it will pass.
func (c *Client) trouble(ctx context.Context, namespace string) (why string, fatal bool) {
	var pods corev1.PodList
	if c.get(ctx, "/api/v1/namespaces/"+namespace+"/pods?labelSelector=app.kubernetes.io/component%3Dgateway", &pods) != nil {
		return "", false
	}
	for i := range pods.Items {
		if why, fatal := podTrouble(&pods.Items[i]); why != "" {
			if strings.Contains(why, "ends again and again") {
				if last := c.lastWords(ctx, namespace, pods.Items[i].Name); last != "" {
					why += ", saying: " + last
				}
			}
			return why, fatal
		}
	}
	if len(pods.Items) > 0 {
		return "", false
	}
	// No pod at all: the StatefulSet's events say who refused it.
	var events corev1.EventList
	query := "involvedObject.kind%3DStatefulSet%2CinvolvedObject.name%3D" + deploy.StatefulSetName
	if c.get(ctx, "/api/v1/namespaces/"+namespace+"/events?fieldSelector="+query, &events) != nil {
		return "", false
	}
	for i := len(events.Items) - 1; i >= 0; i-- {
		if e := events.Items[i]; e.Reason == "FailedCreate" && time.Since(e.LastTimestamp.Time) < time.Minute {
			return "the cluster refuses its pod: " + oneLine(e.Message), true
		}
	}
	return "", false
}

// podTrouble reads what a pod says about itself.
func podTrouble(pod *corev1.Pod) (why string, fatal bool) {
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			switch w.Reason {
			case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ErrImageInspect", "RegistryUnavailable":
				return fmt.Sprintf("image %s cannot be pulled (%s)%s", c.Image, w.Reason, because(w.Message, c.Image)), true
			case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
				return "its container cannot be made: " + oneLine(w.Message), true
			case "CrashLoopBackOff":
				return fmt.Sprintf("it ends again and again%s", exitCode(c.LastTerminationState.Terminated)), true
			}
		}
		if t := c.State.Terminated; t != nil && c.RestartCount > 1 {
			return fmt.Sprintf("it ends again and again%s", exitCode(t)), false
		}
	}
	for _, cond := range pod.Status.Conditions {
		if cond.Type == corev1.PodScheduled && cond.Status == corev1.ConditionFalse {
			return "no node takes its pod: " + oneLine(cond.Message), false
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		return "its pod failed: " + oneLine(pod.Status.Reason+" "+pod.Status.Message), false
	}
	return "", false
}

// because is the runtime's own reason, when it says more than the image's name.
func because(message, image string) string {
	text := strings.Join(strings.Fields(message), " ")
	backOff := fmt.Sprintf("Back-off pulling image %q", image)
	for _, cut := range []string{backOff, ": ErrImagePull: ", fmt.Sprintf("failed to pull and unpack image %q: ", image), fmt.Sprintf("failed to resolve reference %q: ", image)} {
		text = strings.TrimPrefix(text, cut)
	}
	if text == "" {
		return ""
	}
	return ": " + oneLine(text)
}

func exitCode(t *corev1.ContainerStateTerminated) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf(" (%s, exit status %d)", t.Reason, t.ExitCode)
}

// lastWords is the last line of the log of a pod that ended.
func (c *Client) lastWords(ctx context.Context, namespace, pod string) string {
	ctx, cancel := withTimeoutAlways(ctx, 2*time.Second)
	defer cancel()
	raw, err := c.rest.Get().AbsPath("/api/v1/namespaces/"+namespace+"/pods/"+pod+"/log").Param("tailLines", "1").Param("previous", "true").DoRaw(ctx)
	if err != nil {
		return ""
	}
	return oneLine(string(raw))
}

func (c *Client) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	var p corev1.Pod
	return &p, c.get(ctx, "/api/v1/namespaces/"+namespace+"/pods/"+name, &p)
}
