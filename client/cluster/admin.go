package cluster

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
	"podnet.dev/deploy"
	"podnet.dev/internal/overview"
)

// This file is what administrators do: see who is there, and throw people out.

// maxOverview is how long a gateway's answer may be: 1,000 peers with 20 namespaces
// each take 1 MiB.
const maxOverview = 16 << 20

// Overviews asks all gateways who is there, and hands the answers to each, in the
// order of the pods: once, or, where every is not 0, again and again until ctx ends
// or each fails. A gateway that has gone is left out. It takes the right to exec into
// the gateways' pods.
func (c *Client) Overviews(ctx context.Context, namespace string, every time.Duration, each func([]overview.Gateway) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var asked []*asking
	for i := range deploy.MaxReplicas {
		a, err := c.ask(ctx, &running, namespace, deploy.StatefulSetName+"-"+strconv.Itoa(i))
		if apierrors.IsNotFound(err) {
			break
		}
		if err != nil {
			return c.UnlessAlone(ctx, c.explainExec(namespace, err), namespace, c.Namespace, sayWho)
		}
		asked = append(asked, a)
	}
	if len(asked) == 0 {
		return c.UnlessAlone(ctx, &NotInstalledError{Server: c.Server, Namespace: namespace}, namespace, c.Namespace, sayWho)
	}
	for {
		var all []overview.Gateway
		for _, a := range asked {
			if o, err := a.next(ctx); err == nil {
				all = append(all, o)
			} else {
				a.err = cmp.Or(a.err, err)
			}
		}
		if len(all) == 0 {
			return cmp.Or(ctx.Err(), c.explainExec(namespace, asked[0].err))
		}
		if err := each(all); err != nil || every == 0 {
			return err
		}
		asked = slices.DeleteFunc(asked, func(a *asking) bool { return a.err != nil })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// What the gateway of one namespace cannot do.
const (
	sayWho = "say who is connected"
	endAll = "end somebody's sessions"
)

// asking is a command in a gateway's pod, which answers each line once.
type asking struct {
	answers *bufio.Reader
	first   *overview.Gateway
	more    io.Writer
	err     error
}

// ask begins to ask a gateway, and has its first answer when it returns.
func (c *Client) ask(ctx context.Context, running *sync.WaitGroup, namespace, pod string) (*asking, error) {
	command, err := c.executor(namespace, pod)
	if err != nil {
		return nil, err
	}
	in, more := io.Pipe()
	out, answer := io.Pipe()
	running.Go(func() {
		err := command.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: answer, Stderr: io.Discard})
		_ = answer.CloseWithError(cmp.Or(err, io.EOF))
		_ = in.CloseWithError(io.ErrClosedPipe)
	})
	a := &asking{answers: bufio.NewReaderSize(out, 64<<10), more: more}
	o, err := a.read()
	if said := verdict(err); said != nil {
		return nil, said
	}
	if err != nil {
		return nil, err
	}
	a.first = &o
	return a, nil
}

// next is the gateway's next answer.
func (a *asking) next(ctx context.Context) (overview.Gateway, error) {
	if o := a.first; o != nil {
		a.first = nil
		return *o, nil
	}
	if ctx.Err() != nil {
		return overview.Gateway{}, ctx.Err()
	}
	if _, err := io.WriteString(a.more, "\n"); err != nil {
		return overview.Gateway{}, err
	}
	return a.read()
}

func (a *asking) read() (o overview.Gateway, err error) {
	var line []byte
	for {
		part, err := a.answers.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxOverview {
			return o, fmt.Errorf("the gateway's answer is longer than %d bytes", maxOverview)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return o, err
		}
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return o, fmt.Errorf("read the gateway's answer: %w", err)
	}
	return o, nil
}

// executor runs the one command that may be run in a gateway's pod.
func (c *Client) executor(namespace, pod string) (remotecommand.Executor, error) {
	query := url.Values{"container": {"gateway"}, "command": overview.Command, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
	at := c.rest.Post().AbsPath("/api/v1/namespaces/" + namespace + "/pods/" + pod + "/exec").URL()
	at.RawQuery = query.Encode()
	socket, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, at.String())
	if err != nil {
		return nil, err
	}
	old, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, at)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(socket, old, func(err error) bool {
		return verdict(err) == nil && (httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err))
	})
}

// explainExec says what a refused command lacks.
func (c *Client) explainExec(namespace string, err error) error {
	if apierrors.IsForbidden(err) {
		p := Permission{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: namespace}
		return &ForbiddenError{User: c.User, Permission: p, Err: err,
			Ask: "kubectl -n " + namespace + " create rolebinding " + nameOf(c.User) + "-top --role=podnet-top " + c.subject()}
	}
	var ended exec.CodeExitError
	if errors.As(err, &ended) {
		return &localapi.Error{Code: localapi.CodeTooOld, Message: "the gateway in namespace " + namespace + " does not know what to say: it is older than this podnet",
			Hint: "podnet install brings it up to date"}
	}
	return c.explain("ask the gateway at", err)
}

// Revoked is a device that was thrown out.
type Revoked struct {
	Peer, User, Device string
}

// Revoke deletes a user's Peers, or the one Peer of that name, which cuts their
// tunnels within two seconds. It takes the rights of podnet-admin. A user whom the
// gateway's namespace does not know is an empty list.
func (c *Client) Revoke(ctx context.Context, namespace, who string) ([]Revoked, error) {
	var list v1alpha1.PeerList
	if err := c.get(ctx, peerPath(namespace, ""), &list); err != nil {
		return nil, c.UnlessAlone(ctx, c.explainAdmin(namespace, "list", err), namespace, c.Namespace, endAll)
	}
	if len(list.Items) == 0 && c.Alone(ctx, namespace) { // where the cluster knows Peers as well
		return nil, CannotAlone(namespace, endAll)
	}
	var all []Revoked
	for _, p := range list.Items {
		if p.Name != who && p.Spec.User != who {
			continue
		}
		if err := c.delete(ctx, peerPath(namespace, p.Name)); err != nil && !apierrors.IsNotFound(err) {
			return all, c.explainAdmin(namespace, "delete", err)
		}
		all = append(all, Revoked{Peer: p.Name, User: p.Spec.User, Device: p.Spec.Device})
	}
	return all, nil
}

func (c *Client) explainAdmin(namespace, verb string, err error) error {
	if apierrors.IsNotFound(err) {
		return &NotInstalledError{Server: c.Server, Namespace: namespace}
	}
	if apierrors.IsForbidden(err) {
		p := Permission{Verb: verb, Group: v1alpha1.GroupVersion.Group, Resource: "peers", Namespace: namespace}
		return &ForbiddenError{User: c.User, Permission: p, Err: err,
			Ask: "kubectl -n " + namespace + " create rolebinding " + nameOf(c.User) + "-admin --clusterrole=podnet-admin " + c.subject()}
	}
	return c.explain(verb+" Peers at", err)
}

// OverviewsOf opens the cluster that kube points to and asks its gateways.
func OverviewsOf(ctx context.Context, kube localapi.Kube, namespace string, every time.Duration, each func([]overview.Gateway) error) error {
	c, err := opened(ctx, kube, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return c.Overviews(ctx, namespace, every, each)
}

// RevokeAt opens the cluster that kube points to and throws somebody out.
func RevokeAt(ctx context.Context, kube localapi.Kube, namespace, who string) ([]Revoked, error) {
	c, err := opened(ctx, kube, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return c.Revoke(ctx, namespace, who)
}
