package cluster

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"

	"podnet.dev/client/localapi"
)

// KubeconfigError says that there is no usable kubeconfig.
type KubeconfigError struct {
	Source string
	Err    error
}

func (e *KubeconfigError) Error() string {
	if clientcmd.IsEmptyConfig(e.Err) {
		return fmt.Sprintf("no cluster to talk to: %s has none", e.Source)
	}
	text := e.Err.Error()
	if clientcmd.IsConfigurationInvalid(e.Err) || strings.Contains(text, e.Source) {
		text = strings.TrimPrefix(text, "invalid configuration: ")
	}
	if !strings.Contains(text, e.Source) {
		return fmt.Sprintf("read kubeconfig %s: %s", e.Source, oneLine(text))
	}
	return "read kubeconfig: " + oneLine(text)
}
func (e *KubeconfigError) Unwrap() error { return e.Err }
func (e *KubeconfigError) Code() string  { return localapi.CodeCredentials }
func (e *KubeconfigError) Hint() string {
	return "name a kubeconfig by --kubeconfig or KUBECONFIG and a context by --context; kubectl config get-contexts lists them"
}

// UnreachableError says that the API server did not answer.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cannot reach the API server %s: %s", e.Server, reason(e.Err))
}
func (e *UnreachableError) Unwrap() error { return e.Err }
func (e *UnreachableError) Code() string  { return localapi.CodeUnreachable }
func (e *UnreachableError) Hint() string {
	return "does kubectl cluster-info work from here? A VPN or a proxy may be missing"
}

// CredentialsError says that the API server does not know us, or we it.
type CredentialsError struct {
	Server string
	Err    error
}

func (e *CredentialsError) Error() string {
	return fmt.Sprintf("the API server %s does not accept these credentials: %s", e.Server, reason(e.Err))
}
func (e *CredentialsError) Unwrap() error { return e.Err }
func (e *CredentialsError) Code() string  { return localapi.CodeCredentials }
func (e *CredentialsError) Hint() string  { return "does kubectl auth whoami work? Log in again if not" }

// TooOldError says that the cluster lacks what podnet's security stands on.
type TooOldError struct{ Server, Version string }

func (e *TooOldError) Error() string {
	return fmt.Sprintf("the cluster runs Kubernetes %s, podnet needs 1.%d or later", e.Version, MinMinor)
}
func (e *TooOldError) Code() string { return localapi.CodeTooOld }
func (e *TooOldError) Hint() string {
	return "podnet's permissions stand on ValidatingAdmissionPolicy, which is in every cluster since 1.30"
}

// NotInstalledError says that the cluster has no podnet.
type NotInstalledError struct{ Server, Namespace string }

func (e *NotInstalledError) Error() string {
	return fmt.Sprintf("podnet is not installed in the cluster %s", e.Server)
}
func (e *NotInstalledError) Code() string { return localapi.CodeNotInstalled }
func (e *NotInstalledError) Hint() string {
	return "an administrator installs it with podnet install; if it is in another namespace than " + e.Namespace + ", say so by --gateway-namespace"
}

// ForbiddenError says which permission is missing, and whom to ask for what.
type ForbiddenError struct {
	User string
	Permission
	// Ask is the command that an administrator would run.
	Ask string
	Err error
}

func (e *ForbiddenError) Error() string { return fmt.Sprintf("%s may not %s", e.User, e.Permission) }
func (e *ForbiddenError) Unwrap() error { return e.Err }
func (e *ForbiddenError) Code() string  { return localapi.CodeForbidden }
func (e *ForbiddenError) Hint() string {
	if e.Ask == "" {
		return "use credentials that may, or ask an administrator"
	}
	return "ask an administrator for: " + e.Ask
}

// explain makes one clear error of what a call to the API server said.
func (c *Client) explain(attempt string, err error) error {
	var certificate x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var netErr net.Error
	switch {
	case err == nil, err == ErrGone, errors.Is(err, context.Canceled):
		return err
	case apierrors.IsUnauthorized(err), strings.Contains(err.Error(), "getting credentials:"),
		errors.As(err, &certificate), errors.As(err, &hostname), errors.As(err, &invalid):
		return &CredentialsError{Server: c.Server, Err: err}
	case errors.As(err, &netErr), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &UnreachableError{Server: c.Server, Err: err}
	case apierrors.IsForbidden(err):
		return &localapi.Error{Code: localapi.CodeForbidden, Message: fmt.Sprintf("%s %s: %s", attempt, c.Server, reason(err)), Hint: "use credentials that may, or ask an administrator", Status: http.StatusForbidden}
	case apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err):
		return &UnreachableError{Server: c.Server, Err: err}
	}
	return fmt.Errorf("%s the API server %s: %s", attempt, c.Server, reason(err))
}

// reason is the heart of an error, without the URL that client-go and net/http
// put before it.
func reason(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return oneLine(err.Error())
}

// oneLine keeps a stranger's text to one line of at most 300 bytes.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:297] + "..."
	}
	return s
}
