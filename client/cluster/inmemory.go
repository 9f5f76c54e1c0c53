package cluster

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"podnet.dev/client/localapi"
)

// Kubeconfigs that are in no file: the text in a variable, and what a pod has.

// mount is where Kubernetes puts a pod's credentials.
var mount = "/var/run/secrets/kubernetes.io/serviceaccount"

// InCluster is the name of the context that a pod's ServiceAccount makes.
const InCluster = "in-cluster"

// inMemory applies the connection flags to a kubeconfig.
func inMemory(config *clientcmdapi.Config, flags map[string][]string) clientcmd.ClientConfig {
	var o clientcmd.ConfigOverrides
	set := pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)
	clientcmd.BindOverrideFlags(&o, set, clientcmd.RecommendedConfigOverrideFlags(""))
	for name, values := range flags {
		for _, v := range values {
			if set.Lookup(name) != nil {
				_ = set.Set(name, v) // it was parsed before, where it was a flag
			}
		}
	}
	for _, extra := range flags["as-user-extra"] {
		if key, value, ok := strings.Cut(extra, "="); ok {
			if o.AuthInfo.ImpersonateUserExtra == nil {
				o.AuthInfo.ImpersonateUserExtra = map[string][]string{}
			}
			o.AuthInfo.ImpersonateUserExtra[key] = append(o.AuthInfo.ImpersonateUserExtra[key], value)
		}
	}
	return clientcmd.NewNonInteractiveClientConfig(*config, o.CurrentContext, &o, nil)
}

// parseData reads a kubeconfig that somebody put into a variable, as it is or in
// base64, which has no colon and which no kubeconfig is without.
func parseData(text string) (*clientcmdapi.Config, error) {
	raw := []byte(text)
	if !strings.ContainsAny(text, ":{") {
		var err error
		if raw, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err != nil {
			return nil, fmt.Errorf("it is neither YAML nor base64")
		}
	}
	config, err := clientcmd.Load(raw)
	if err != nil {
		return nil, fmt.Errorf("it is no kubeconfig") // the parser's words may quote what is secret
	}
	if len(config.Clusters) == 0 {
		return nil, clientcmd.ErrEmptyConfig
	}
	for _, file := range filesOf(config) {
		if !filepath.IsAbs(file) {
			return nil, fmt.Errorf("it names the file %s: kubectl config view --minify --flatten puts what is in files into it", file)
		}
	}
	return config, nil
}

// filesOf are the files that a kubeconfig names.
func filesOf(config *clientcmdapi.Config) []string {
	var all []string
	add := func(files ...string) {
		for _, f := range files {
			if f != "" {
				all = append(all, f)
			}
		}
	}
	for _, c := range config.Clusters {
		add(c.CertificateAuthority)
	}
	for _, u := range config.AuthInfos {
		add(u.ClientCertificate, u.ClientKey, u.TokenFile)
	}
	return all
}

// serviceAccount is the kubeconfig of a program in a pod; nil: the caller is in
// none, or its ServiceAccount is not mounted.
func serviceAccount(env []string) *clientcmdapi.Config {
	host, port, token := lookup(env, "KUBERNETES_SERVICE_HOST"), lookup(env, "KUBERNETES_SERVICE_PORT"), filepath.Join(mount, "token")
	if _, err := os.Stat(token); err != nil || host == "" || port == "" {
		return nil
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[InCluster] = &clientcmdapi.Cluster{Server: "https://" + net.JoinHostPort(host, port), CertificateAuthority: filepath.Join(mount, "ca.crt")}
	config.AuthInfos[InCluster] = &clientcmdapi.AuthInfo{TokenFile: token} // the kubelet renews it
	namespace, _ := os.ReadFile(filepath.Join(mount, "namespace"))         // who lacks it names one
	config.Contexts[InCluster] = &clientcmdapi.Context{Cluster: InCluster, AuthInfo: InCluster, Namespace: strings.TrimSpace(string(namespace))}
	config.CurrentContext = InCluster
	return config
}

// useTokenFile makes a file's token the credentials, in place of what the kubeconfig
// says of a token or a plugin.
func useTokenFile(config *rest.Config, file string) error {
	text, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(text)) == "" {
		err = fmt.Errorf("%s is empty", file)
	}
	if err != nil {
		return &localapi.Error{Code: localapi.CodeCredentials, Message: "read the token: " + err.Error(), Hint: "--token-file names a file that holds a bearer token and nothing else"}
	}
	config.BearerToken, config.BearerTokenFile = "", file
	config.Username, config.Password, config.ExecProvider, config.AuthProvider = "", "", nil, nil
	return nil
}
