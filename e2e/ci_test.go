//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/e2e/pipeline"
	"podnet.dev/internal/measure"
)

// nobody is who jobs run as: without rights and without capabilities.
const nobody = 65534

// runner is a machine that runs jobs, as a user. Their kubeconfig is the machine's user's.
func (m machine) runner(t *testing.T, uid int) pipeline.World {
	t.Helper()
	dir, err := os.MkdirTemp("", "podnet-job-*") // t.TempDir is for us alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := pipeline.World{Dir: filepath.Join(dir, "sources"), Temp: filepath.Join(dir, "temp")}
	home := filepath.Join(dir, "home")
	err = pipeline.Project(top, w.Dir)
	for _, d := range []string{dir, w.Dir, w.Temp, home} {
		err = errors.Join(err, os.MkdirAll(d, 0o755), os.Chmod(d, 0o755), os.Chown(d, uid, uid))
	}
	program := filepath.Join(top, "bin/podnet")
	bytes, readErr := os.ReadFile(program)
	if err = errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	w.Env = map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": home}
	w.Vars = map[string]string{"PODNET_URL": "file://" + program, "PODNET_SHA256": fmt.Sprintf("%x", sha256.Sum256(bytes))}
	w.Secrets = map[string]string{"KUBECONFIG": m.kubeconfig(t)}
	w.Run = func(_ context.Context, dir string, env map[string]string, argv ...string) (string, int) {
		r := m.asUser(uid, dir, env, argv...).try(t)
		return r.stdout + r.stderr, r.code
	}
	return w
}

// kubeconfig is the machine's user's, whole and in base64.
func (m machine) kubeconfig(t *testing.T) string {
	t.Helper()
	return base64.StdEncoding.EncodeToString([]byte(m.cmd("kubectl", "config", "view", "--minify", "--flatten", "--raw").must(t)))
}

// asUser runs something on the machine as a user with exactly env.
func (m machine) asUser(uid int, dir string, env map[string]string, argv ...string) command {
	line := []string{"env", "-i", "-C", dir}
	for name, value := range env {
		line = append(line, name+"="+value)
	}
	if uid != 0 {
		id := fmt.Sprint(uid)
		line = append([]string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"}, line...)
	}
	c := m.cmd(append(line, argv...)...)
	c.shown = strings.Join(argv, " ") // without the secrets
	return c
}

// with runs a command of asUser's where root has changed what is mounted, by a script
// whose $0 is a folder.
func (c command) with(script, folder string) command {
	at := slices.Index(c.args, "setpriv")
	c.args = slices.Insert(slices.Clone(c.args), at, "unshare", "--mount", "--propagation", "private", "sh", "-c", script+` && exec "$@"`, folder)
	return c
}

// tunForAll has TUN devices as distributions have them: for everybody.
const tunForAll = `mknod "$0/tun" c 10 200 && chmod 666 "$0/tun" && mount --bind "$0/tun" /dev/net/tun`

func recipe(t *testing.T, section string, nth int) []byte {
	t.Helper()
	text, err := pipeline.Recipe(top, section, nth)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// nobodyLeft wants every Peer of the cluster gone soon.
func nobodyLeft(t *testing.T) {
	t.Helper()
	eventually(t, 10*time.Second, "no Peer is left", func() error {
		if left := kubectl("get", "peers", "-n", "podnet-system", "-o", "name").must(t); left != "" {
			return errors.New(left)
		}
		return nil
	})
}

// TestGitHubAction runs the recipe of docs/ci.md by somebody without privilege: two jobs
// at once, one that may not, and one with the whole machine connected.
func TestGitHubAction(t *testing.T) {
	flow := string(recipe(t, "GitHub Actions", 0))
	before := alice.snapshot(t)
	t.Run("jobs", func(t *testing.T) {
		for _, name := range []string{"first", "second"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := alice.runner(t, nobody)
				start := time.Now()
				r, err := pipeline.GitHub(t.Context(), w, []byte(flow), "test")
				if err != nil {
					t.Fatal(err)
				}
				if r.Failed || strings.Count(r.Output(), "hello from web-") != 2 {
					t.Errorf("failed %v\n%s", r.Failed, r.Output())
				}
				want(t, r.Summary, "socks5h://127.0.0.1:")
				report(t, "GitHub action as uid 65534, "+name+" of two jobs at once: the whole job", time.Since(start).Round(time.Millisecond))
				encoded := w.Secrets["KUBECONFIG"]
				text, _ := base64.StdEncoding.DecodeString(encoded)
				words := strings.Fields(string(text))
				key := slices.MaxFunc(words, func(a, b string) int { return len(a) - len(b) })
				for _, hidden := range []string{encoded[len(encoded)/2:][:60], key[len(key)/2:][:60]} {
					if at := alice.cmd("grep", "-rlF", "-e", hidden, filepath.Dir(w.Dir)).try(t); at.code != 1 {
						t.Errorf("the kubeconfig was written to disk: %s%s", at.stdout, at.stderr)
					}
				}
			})
		}
	})
	if after := alice.snapshot(t); after != before {
		t.Errorf("the laptop has changed:\n%s\nwas:\n%s", after, before)
	}
	nobodyLeft(t)

	r, err := pipeline.GitHub(t.Context(), alice.runner(t, nobody), []byte(strings.Replace(flow, "namespace: shop", "namespace: kube-system", 1)), "test")
	if err != nil {
		t.Fatal(err)
	}
	if !r.Failed {
		t.Error("who may not open a namespace has")
	}
	want(t, r.Output(), "::error title=podnet, exit status 4::alice may not ", "log: ")
	want(t, r.Summary, "exit status 4")

	whole := strings.NewReplacer("namespace: shop", "namespace: shop\n        mode: tun",
		"run: curl -fsS -x ${{ steps.podnet.outputs.proxy-url }}", `run: |
        ip address show dev ${{ steps.podnet.outputs.interface }} to ${{ steps.podnet.outputs.client-ip }}
        server=${{ steps.podnet.outputs.dns-server }}
        dig +short "@${server%:*}" web.shop
        curl -fsS`,
		`test -z "$PODNET_PROXY_PID" || kill "$PODNET_PROXY_PID"`, "podnet disconnect --all").Replace(flow)
	if r, err = pipeline.GitHub(t.Context(), alice.runner(t, 0), []byte(whole), "test"); err != nil {
		t.Fatal(err)
	}
	if r.Failed || strings.Count(r.Output(), "hello from web-") != 2 {
		t.Errorf("failed %v\n%s", r.Failed, r.Output())
	}
	want(t, r.Output(), "198.18.", "10.96.")
	want(t, r.Summary, "the cluster by podnet0")
	nobodyLeft(t)
}

func TestGitLabTemplate(t *testing.T) {
	w := alice.runner(t, nobody)
	w.Secrets = map[string]string{"PODNET_KUBECONFIG_DATA": w.Secrets["KUBECONFIG"]}
	r, err := pipeline.GitLab(t.Context(), w, recipe(t, "GitLab", 0), "integration")
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed || r.Steps[1].Code != 0 {
		t.Errorf("failed %v\n%s", r.Failed, r.Output())
	}
	want(t, r.Output(), "hello from web-")
	nobodyLeft(t)
}

// TestTektonTask runs where Kubernetes has put the credentials of a ServiceAccount, and
// there is nothing else.
func TestTektonTask(t *testing.T) {
	run := recipe(t, "Tekton", 0)
	account, err := pipeline.ServiceAccount(run)
	if err != nil {
		t.Fatal(err)
	}
	task, err := pipeline.Template(top, "tekton/podnet-run.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kubectl("create", "namespace", "builds").must(t)
	t.Cleanup(func() {
		kubectl("delete", "namespace", "builds", "--wait=false").must(t)
		kubectl("delete", "rolebinding", "-n", "podnet-system", "ci").must(t)
		kubectl("delete", "rolebinding", "-n", "shop", "ci-podnet").must(t)
	})
	kubectl("create", "serviceaccount", "-n", "builds", account).must(t)
	who := "--serviceaccount=builds:" + account
	kubectl("create", "rolebinding", "-n", "podnet-system", "ci", "--role=podnet-connect", who).must(t)
	kubectl("create", "rolebinding", "-n", "shop", "ci-podnet", "--clusterrole=podnet-user", who).must(t)

	w := alice.runner(t, nobody)
	ca, err := base64.StdEncoding.DecodeString(alice.cmd("kubectl", "config", "view", "--minify", "--flatten", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}").must(t))
	if err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(w.Temp, "serviceaccount")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"token": kubectl("create", "token", "-n", "builds", account).must(t), "ca.crt": string(ca), "namespace": "builds"} {
		write(t, filepath.Join(mounted, name), text)
	}
	server := alice.cmd("kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}").must(t)
	w.Env["KUBERNETES_SERVICE_HOST"], w.Env["KUBERNETES_SERVICE_PORT"], _ = strings.Cut(strings.TrimPrefix(server, "https://"), ":")
	w.Env["PATH"] = filepath.Join(top, "bin") + ":" + w.Env["PATH"] // as in the image
	w.Run = func(_ context.Context, dir string, env map[string]string, argv ...string) (string, int) {
		const pod = `mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && cp "$0"/* /run/secrets/kubernetes.io/serviceaccount`
		r := alice.asUser(nobody, dir, env, argv...).with(pod, mounted).try(t)
		return r.stdout + r.stderr, r.code
	}
	r, err := pipeline.Tekton(t.Context(), w, task, run, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed {
		t.Error("it failed")
	}
	want(t, r.Output(), "hello from web-", "system:serviceaccount:builds:"+account)
	if t.Failed() {
		t.Log(r.Output())
	}
	nobodyLeft(t)
}

// TestExecInAJob has a network of its own for commands: of one step, and of several.
func TestExecInAJob(t *testing.T) {
	w := alice.runner(t, nobody)
	devices := 0
	in := func(dir string, env map[string]string, argv ...string) result {
		devices++
		folder := filepath.Join(w.Temp, fmt.Sprint("dev", devices))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		return alice.asUser(nobody, dir, env, argv...).with(tunForAll, folder).try(t)
	}
	w.Run = func(_ context.Context, dir string, env map[string]string, argv ...string) (string, int) {
		r := in(dir, env, argv...)
		return r.stdout + r.stderr, r.code
	}
	r, err := pipeline.GitHub(t.Context(), w, recipe(t, "GitHub Actions", 1), "test")
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed {
		t.Errorf("it failed\n%s", r.Output())
	}
	want(t, r.Output(), "hello from web-", "namespace")

	env := map[string]string{"CI": "true", "PODNET_KUBECONFIG_DATA": w.Secrets["KUBECONFIG"], "HOME": w.Env["HOME"], "PATH": filepath.Join(top, "bin") + ":" + w.Env["PATH"]}
	start := time.Now()
	shared := in(w.Dir, env, "bash", "-e", "-c", string(recipe(t, "Any other pipeline", 1)))
	if shared.code != 0 || strings.Count(shared.stdout, "hello from web-") != 2 {
		t.Errorf("exit status %d\n%s%s", shared.code, shared.stdout, shared.stderr)
	}
	report(t, "two steps with one tunnel (exec --join), and its end", time.Since(start).Round(time.Millisecond))
	nobodyLeft(t)
}

// TestAnyOtherPipeline are the lines of docs/ci.md for those: by the proxy, and with the
// whole machine connected, beside which somebody else's job has nothing to fear.
func TestAnyOtherPipeline(t *testing.T) {
	job := func(uid int) (pipeline.World, map[string]string) {
		w := alice.runner(t, uid)
		env := map[string]string{"CI": "true", "PODNET_KUBECONFIG_DATA": w.Secrets["KUBECONFIG"]}
		for k, v := range w.Env {
			env[k] = v
		}
		env["PATH"] = filepath.Join(top, "bin") + ":" + env["PATH"]
		return w, env
	}
	theirs, their := job(nobody)
	proxied := alice.asUser(nobody, theirs.Dir, their, "bash", "-e", "-c", string(recipe(t, "Any other pipeline", 0)))
	want(t, proxied.must(t), "hello from web-")

	ours, our := job(0)
	root := func(script string) command { return alice.asUser(0, ours.Dir, our, "bash", "-e", "-c", script) }
	root("podnet disconnect --all && podnet disconnect --all").must(t) // nothing runs
	lines := strings.Split(strings.TrimSpace(string(recipe(t, "Any other pipeline", 2))), "\n")
	last := len(lines) - 1
	t.Cleanup(func() { root("podnet disconnect --all").try(t) })
	want(t, root(strings.Join(lines[:last], "\n")).must(t), "hello from web-")
	again := root(lines[0] + " -o json-stream").must(t)
	want(t, again, `"type":"ready"`, `"seconds":120`)
	want(t, root("podnet wait --for service/shop/nothere --timeout 1s -o json || echo code $?").must(t), `"kind":"Error"`, `"code":"timeout"`, "its name has no address", "code 5")

	// Two daemons and a proxy of different users on one machine.
	if r := alice.asUser(nobody, theirs.Dir, their, "podnet", "connect", "--wait", "-n", "shop", "-o", "json").try(t); r.code != 7 && r.code != 8 {
		t.Errorf("exit status %d\n%s%s", r.code, r.stdout, r.stderr)
	} else {
		want(t, r.stdout, `"kind":"Error"`, `"exitStatus":`)
		want(t, r.stderr, "hint: ", "log: ")
	}
	want(t, proxied.must(t), "hello from web-")
	want(t, root("curl -fsS http://web.shop").must(t), "hello from web-")
	root(lines[last]).must(t)
	alice.asUser(nobody, theirs.Dir, their, "podnet", "disconnect", "--all").must(t)
	nobodyLeft(t)
}

// TestKilledJob: what cannot say goodbye is forgotten. It is admin's, who has no other
// Peer, and so has nothing to do with what else goes on meanwhile.
func TestKilledJob(t *testing.T) {
	t.Parallel()
	m := laptop2.as("admin")
	w := m.runner(t, nobody)
	lease := lasting(60*time.Second, 120*time.Second)
	env := map[string]string{"CI": "true", "HOME": w.Env["HOME"], "PODNET_KUBECONFIG_DATA": w.Secrets["KUBECONFIG"]}
	if !long {
		env["PODNET_LEASE"] = lease.String()
	}
	out := m.asUser(nobody, w.Dir, env, filepath.Join(top, "bin/podnet"), "proxy", "--detach", "--wait", "-n", "shop", "--listen", "127.0.0.1:0").must(t)
	_, pid, _ := strings.Cut(out, "PODNET_PROXY_PID=")
	its := kubectl("get", "peers", "-n", "podnet-system", "-o", `jsonpath={range .items[?(@.spec.user=="admin")]}{.metadata.name} {.spec.leaseSeconds}{"\n"}{end}`)
	if got := strings.Fields(its.must(t)); len(got) != 2 || got[1] != fmt.Sprint(int(lease.Seconds())) {
		t.Fatalf("the Peer and its lease: %q", got)
	}
	m.cmd("kill", "-9", pid).must(t)
	took := eventually(t, 3*lease, "the Peer is gone", func() error {
		if left := its.must(t); left != "" {
			return errors.New(left)
		}
		return nil
	})
	measure.AtMost(t, fmt.Sprintf("[7] a job with a lease of %v killed to its Peer gone", lease), took, lease+5*time.Second)
	if !within(took, lease+5*time.Second) {
		t.Errorf("after %v", took)
	}
}
