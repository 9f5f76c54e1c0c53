package cluster

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/net/http/httpproxy"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the auth providers that kubeconfigs name
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"

	"podnet.dev/client/localapi"
)

// Flags are kubectl's connection flags. They are read in the program that the
// user calls and used in the daemon, to which they travel as a localapi.Kube.
type Flags struct{ set *pflag.FlagSet }

// NewFlags makes a set of flags with nothing set.
func NewFlags() *Flags {
	kube := genericclioptions.NewConfigFlags(true)
	// -n has a meaning of its own in each command.
	kube.Namespace = nil
	f := &Flags{pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)}
	kube.AddFlags(f.set)
	addTokenFile(f.set)
	return f
}

// addTokenFile adds the one connection flag that kubectl lacks: a token on the
// command line can be read by everybody on the machine.
func addTokenFile(set *pflag.FlagSet) {
	set.String(tokenFile, "", "file with a bearer token for the API server; read anew when it changes")
}

const tokenFile = "token-file"

// AddTo registers the flags with a command.
func (f *Flags) AddTo(to *pflag.FlagSet) { to.AddFlagSet(f.set) }

// fileFlags name files, which mean something relative to the caller's folder.
var fileFlags = map[string]bool{"kubeconfig": true, "certificate-authority": true, "client-certificate": true, "client-key": true, tokenFile: true, "cache-dir": true}

// Kube is what was set, together with the environment env and with file names
// made absolute.
func (f *Flags) Kube(env []string) (localapi.Kube, error) {
	k := localapi.Kube{Flags: map[string][]string{}, Env: env}
	var err error
	f.set.VisitAll(func(fl *pflag.Flag) {
		if !fl.Changed {
			return
		}
		values := []string{fl.Value.String()}
		if s, ok := fl.Value.(pflag.SliceValue); ok {
			values = s.GetSlice()
		}
		if fileFlags[fl.Name] && values[0] != "" {
			abs, absErr := filepath.Abs(values[0])
			if absErr != nil {
				err = absErr
			}
			values[0] = abs
		}
		k.Flags[fl.Name] = values
	})
	for i, e := range k.Env {
		if list, ok := strings.CutPrefix(e, "KUBECONFIG="); ok {
			k.Env = append(append([]string{}, k.Env[:i]...), k.Env[i:]...)
			k.Env[i] = "KUBECONFIG=" + absoluteList(list)
		}
	}
	return k, err
}

func absoluteList(list string) string {
	files := filepath.SplitList(list)
	for i, f := range files {
		if abs, err := filepath.Abs(f); err == nil && f != "" {
			files[i] = abs
		}
	}
	return strings.Join(files, string(filepath.ListSeparator))
}

// environment guards the process environment while a kubeconfig is loaded:
// client-go reads KUBECONFIG from there and offers no other way that keeps
// every connection flag.
var environment sync.Mutex

// loaderOf reads kubeconfigs as kubectl would for the caller that kube describes.
func loaderOf(kube localapi.Kube) (clientcmd.ClientConfig, error) {
	flags := genericclioptions.NewConfigFlags(true)
	flags.Namespace = nil
	set := pflag.NewFlagSet("kubernetes", pflag.ContinueOnError)
	flags.AddFlags(set)
	addTokenFile(set)
	for name, values := range kube.Flags {
		for _, v := range values {
			if err := set.Set(name, v); err != nil {
				return nil, &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "podnet connect --help lists the flags"}
			}
		}
	}
	environment.Lock()
	defer environment.Unlock()
	old, had := os.LookupEnv("KUBECONFIG")
	defer func() {
		if had {
			_ = os.Setenv("KUBECONFIG", old)
		} else {
			_ = os.Unsetenv("KUBECONFIG")
		}
	}()
	if err := os.Setenv("KUBECONFIG", lookup(kube.Env, "KUBECONFIG")); err != nil {
		return nil, err
	}
	return flags.ToRawKubeConfigLoader(), nil
}

// source is the kubeconfig that the caller means, with the flags applied, and what
// to call it: the file of --kubeconfig, else the text in the environment, else the
// files that kubectl reads, and where those have no cluster a pod's ServiceAccount.
func source(kube localapi.Kube) (clientcmd.ClientConfig, string, error) {
	if text := lookup(kube.Env, localapi.KubeconfigData); text != "" && len(kube.Flags["kubeconfig"]) == 0 {
		config, err := parseData(text)
		if err != nil {
			return nil, "", &KubeconfigError{Source: localapi.KubeconfigData, Err: err}
		}
		return inMemory(config, kube.Flags), localapi.KubeconfigData, nil
	}
	loader, err := loaderOf(kube)
	if err != nil {
		return nil, "", err
	}
	raw, err := loader.RawConfig()
	if err == nil && len(raw.Clusters) == 0 && len(kube.Flags["server"]) == 0 {
		if config := serviceAccount(kube.Env); config != nil {
			return inMemory(config, kube.Flags), mount, nil
		}
	}
	return loader, kubeconfigSource(kube), nil
}

// load makes a REST configuration of what source finds.
func load(kube localapi.Kube) (config *rest.Config, context, namespace string, err error) {
	loader, from, err := source(kube)
	if err != nil {
		return nil, "", "", err
	}
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, "", "", &KubeconfigError{Source: from, Err: err}
	}
	if config, err = loader.ClientConfig(); err != nil {
		return nil, "", "", &KubeconfigError{Source: from, Err: err}
	}
	if len(raw.Clusters) == 0 && len(kube.Flags["server"]) == 0 && config.Host == "http://localhost:8080" {
		// kubectl's default of old; nobody means it.
		return nil, "", "", &KubeconfigError{Source: from, Err: clientcmd.ErrEmptyConfig}
	}
	if namespace, _, err = loader.Namespace(); err != nil {
		return nil, "", "", &KubeconfigError{Source: from, Err: err}
	}
	context = raw.CurrentContext
	if c := kube.Flags["context"]; len(c) > 0 {
		context = c[0]
	}
	if file := strings.Join(kube.Flags[tokenFile], ""); file != "" {
		if err := useTokenFile(config, file); err != nil {
			return nil, "", "", err
		}
	}
	asCaller(config, kube.Env)
	return config, context, namespace, nil
}

func kubeconfigSource(kube localapi.Kube) string {
	if f := kube.Flags["kubeconfig"]; len(f) > 0 {
		return f[0]
	}
	if env := lookup(kube.Env, "KUBECONFIG"); env != "" {
		return env
	}
	return clientcmd.RecommendedHomeFile
}

// asCaller makes exec plugins and proxies see the caller's environment rather
// than that of the daemon, which another terminal may have started.
func asCaller(config *rest.Config, env []string) {
	if len(env) == 0 {
		return
	}
	if p := config.ExecProvider; p != nil {
		own := map[string]bool{}
		for _, e := range p.Env {
			own[e.Name] = true
		}
		var extra []clientcmdapi.ExecEnvVar
		for _, e := range env {
			if name, value, ok := strings.Cut(e, "="); ok && !own[name] && !passing[name] {
				extra = append(extra, clientcmdapi.ExecEnvVar{Name: name, Value: value})
			}
		}
		p.Env = append(extra, p.Env...)
		p.InteractiveMode = clientcmdapi.NeverExecInteractiveMode // a daemon has no terminal
		if path := lookPath(p.Command, lookup(env, "PATH")); path != "" {
			p.Command = path
		}
	}
	if config.Proxy == nil {
		get := func(name string) string {
			if v := lookup(env, strings.ToLower(name)); v != "" {
				return v
			}
			return lookup(env, name)
		}
		proxy := (&httpproxy.Config{HTTPProxy: get("HTTP_PROXY"), HTTPSProxy: get("HTTPS_PROXY"), NoProxy: get("NO_PROXY")}).ProxyFunc()
		config.Proxy = func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
	}
}

// passing are what a shell sets anew with each folder and command. A plugin, which runs
// in the daemon's folder, has no use for them, and client-go keeps what it makes of a
// plugin as long as the process lives, by all of the environment: of each call from
// another folder something would stay.
var passing = map[string]bool{"_": true, "PWD": true, "OLDPWD": true, "SHLVL": true}

// lookPath is exec.LookPath with somebody else's PATH.
func lookPath(command, path string) string {
	if strings.ContainsRune(command, filepath.Separator) {
		return ""
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		if found, err := exec.LookPath(filepath.Join(dir, command)); err == nil {
			return found
		}
	}
	return ""
}

func lookup(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// silence keeps client-go's own talk away from the user: whatever matters comes
// back as an error.
var silence = sync.OnceFunc(func() {
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	for name, value := range map[string]string{"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL"} {
		if err := fs.Set(name, value); err != nil {
			panic(fmt.Sprintf("klog lost its flag %s: %v", name, err))
		}
	}
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	utilruntime.ErrorHandlers = nil
})
