// Package cluster is the laptop's only door to Kubernetes: kubeconfig and
// credentials, podnet's objects, permissions, streams to a pod by
// port-forward, and installing. It knows no tunnel and changes nothing on the
// host.
//
// It speaks to the API server in plain JSON over client-go's REST client. The
// typed clientset would add 20 MB to the program for a dozen calls.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/version"
)

const (
	// requestTimeout is how long one call may take. Nothing we ask for is
	// large; nobody waits longer than 10 s for an answer.
	requestTimeout = 8 * time.Second
	// pluginTimeout is added to the first call when an exec plugin brings the
	// credentials: somebody may have to log in by a browser.
	pluginTimeout = 2 * time.Minute
	// dialTimeout is how long a TCP connection to the API server may take.
	dialTimeout = 5 * time.Second
)

// MinMinor is the oldest minor version of Kubernetes 1 that works:
// ValidatingAdmissionPolicy is generally available since 1.30.
const MinMinor = 30

// Client speaks to one cluster with one set of credentials.
type Client struct {
	config *rest.Config
	rest   *rest.RESTClient
	log    *slog.Logger

	Identity

	mu      sync.Mutex
	remotes map[netip.Addr]bool
	conns   map[*tracked]struct{}
}

// Identity is where and who we are.
type Identity struct {
	// Context and Namespace are the kubeconfig's; Server is the API server's URL.
	Context, Namespace, Server string
	// User is how the API server knows us; Check sets it.
	User string
}

// Whoami is the Client's Identity.
func (c *Client) Whoami() Identity { return c.Identity }

// Open reads the kubeconfig that kube points to. It makes no request.
func Open(kube localapi.Kube, log *slog.Logger) (*Client, error) {
	silence()
	config, name, namespace, err := load(kube)
	if err != nil {
		return nil, err
	}
	c := &Client{log: log, Identity: Identity{Context: name, Namespace: namespace, Server: config.Host}, remotes: map[netip.Addr]bool{}}
	config.UserAgent = "podnet/" + version.Version
	config.QPS = -1 // the server has its own fairness
	config.Dial = c.dial
	config.WarningHandler = rest.NoWarnings{}
	config.NegotiatedSerializer = codecs
	c.config = config
	if c.rest, err = rest.UnversionedRESTClientFor(config); err != nil {
		return nil, &CredentialsError{Server: config.Host, Err: err}
	}
	if config.ExecProvider != nil {
		own := *c.rest.Client
		own.Transport = impatient{own.Transport}
		c.rest.Client = &own
	}
	return c, nil
}

// codecs know Status, which is how the API server says no, and nothing else.
var codecs = func() runtime.NegotiatedSerializer {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(s).WithoutConversion()
}()

// dial connects and remembers whom it reached: the addresses that must stay
// outside the tunnel, a proxy's if there is one.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.remotes[a.AddrPort().Addr().Unmap()] = true
	}
	return c.trackLocked(conn), nil
}

// Remotes are the addresses that calls went to so far.
func (c *Client) Remotes() []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []netip.Addr
	for a := range c.remotes {
		if !a.IsLoopback() {
			all = append(all, a)
		}
	}
	return all
}

// Check finds out who we are to the API server and that it is new enough.
func (c *Client) Check(ctx context.Context) error {
	if c.config.ExecProvider != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pluginTimeout)
		defer cancel()
	}
	var v struct{ Major, Minor, GitVersion string }
	if err := c.get(ctx, "/version", &v); err != nil {
		return c.explain("ask for the version of", err)
	}
	if old, err := tooOld(v.Major, v.Minor); err != nil || old {
		return &TooOldError{Server: c.Server, Version: v.GitVersion}
	}
	review := authenticationv1.SelfSubjectReview{TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "SelfSubjectReview"}}
	if err := c.post(ctx, "/apis/authentication.k8s.io/v1/selfsubjectreviews", review, &review); err != nil {
		return c.explain("ask for our name at", err)
	}
	if c.User = review.Status.UserInfo.Username; c.User == "" || c.User == "system:anonymous" {
		return &CredentialsError{Server: c.Server, Err: fmt.Errorf("it takes us for nobody")}
	}
	return nil
}

// tooOld reads versions as they come: "1" and "30", also "30+" of some clouds.
func tooOld(major, minor string) (bool, error) {
	digits := func(s string) (int, error) {
		return strconv.Atoi(s[:len(s)-len(strings.TrimLeft(s, "0123456789"))])
	}
	maj, err := digits(major)
	if err != nil {
		return false, err
	}
	min, err := digits(minor)
	return maj < 1 || maj == 1 && min < MinMinor, err
}

func (c *Client) get(ctx context.Context, path string, out any) error {
	return c.do(ctx, c.rest.Get(), path, nil, out)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, c.rest.Post(), path, in, out)
}

func (c *Client) delete(ctx context.Context, path string) error {
	return c.do(ctx, c.rest.Delete(), path, nil, nil)
}

// do makes one call: in and out travel as JSON, a refusal is a *StatusError.
// path may carry a query.
func (c *Client) do(ctx context.Context, req *rest.Request, path string, in, out any) error {
	ctx, cancel := withTimeout(ctx, requestTimeout)
	defer cancel()
	path, query, _ := strings.Cut(path, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	req = req.AbsPath(path).SetHeader("Accept", "application/json")
	for k, vs := range values {
		for _, v := range vs {
			req = req.Param(k, v)
		}
	}
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return err
		}
		req = req.Body(body)
		if _, ok := in.(mergePatch); ok {
			req = req.SetHeader("Content-Type", "application/merge-patch+json")
		} else {
			req = req.SetHeader("Content-Type", "application/json")
		}
	}
	result := req.Do(ctx)
	if err := result.Error(); err != nil { // Raw's error lacks the server's words
		return err
	}
	raw, err := result.Raw()
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("parse the answer to %s: %w", path, err)
	}
	return nil
}

// mergePatch is a JSON merge patch (RFC 7386).
type mergePatch map[string]any

// withTimeout adds a deadline unless the caller has set one on purpose.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}
