package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// here is a world on this machine, as whoever runs the test.
func here(t *testing.T) World {
	t.Helper()
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no " + program + " on this machine")
		}
	}
	return World{Dir: t.TempDir(), Temp: t.TempDir(), Env: map[string]string{"PATH": os.Getenv("PATH"), "HOME": t.TempDir()},
		Run: func(ctx context.Context, dir string, env map[string]string, argv ...string) (string, int) {
			cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Dir, cmd.Env = dir, []string{}
			for k, v := range env {
				cmd.Env = append(cmd.Env, k+"="+v)
			}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return fmt.Sprint(string(out), err), -1
			}
			return string(out), cmd.ProcessState.ExitCode()
		}}
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestGitHub(t *testing.T) {
	w := here(t)
	w.Secrets = map[string]string{"TOKEN": "s3cret"}
	put(t, filepath.Join(w.Dir, "act/action.yml"), `
name: an action
description: it is
inputs:
  who: {description: who, required: true}
  how: {default: loudly}
outputs:
  said: {value: '${{ steps.speak.outputs.line }}'}
runs:
  using: composite
  steps:
  - id: speak
    shell: bash
    env: {WHO: '${{ inputs.who }}'}
    run: |
      echo "line=$WHO, ${{ inputs.how }}" >> "$GITHUB_OUTPUT"
      echo "HEARD=$WHO" >> "$GITHUB_ENV"
      printf 'LONG<<E\na\nb=c\nE\n' >> "$GITHUB_ENV"
      mkdir "$RUNNER_TEMP/bin"; printf '#!/bin/sh\necho tool' > "$RUNNER_TEMP/bin/tool"; chmod 755 "$RUNNER_TEMP/bin/tool"
      echo "$RUNNER_TEMP/bin" >> "$GITHUB_PATH"
      echo done >> "$GITHUB_STEP_SUMMARY"
      test -f "$GITHUB_ACTION_PATH/action.yml"
`, 0o644)
	flow := []byte(`
on: push
jobs:
  one:
    env: {TOP: here}
    steps:
    - uses: actions/checkout@v4
    - {uses: ./act, id: act, with: {who: '${{ secrets.TOKEN }}'}}
    - name: talk
      run: 'echo "$HEARD $LONG $(tool) $TOP $CI ${{ steps.act.outputs.said }}"; false; echo never'
    - run: echo skipped
    - {if: failure(), shell: sh, run: echo mourning}
    - {if: always(), run: 'echo cleaning ${{ steps.none.outputs.at }}'}
  inputs: {steps: [{uses: ./act, with: {who: a, why: b}}]}
  required: {steps: [{uses: ./act}]}
  foreign: {steps: [{uses: somebody/else@v1}]}
  condition: {steps: [{if: "github.ref == 'main'", run: 'true'}]}
  expression: {steps: [{run: 'echo ${{ matrix.os }}'}]}
`)
	r, err := GitHub(t.Context(), w, flow, "one")
	if err != nil {
		t.Fatal(err)
	}
	out := r.Output()
	for _, say := range []string{"s3cret a\nb=c tool here true s3cret, loudly", "mourning", "\ncleaning\n"} {
		if !strings.Contains(out, say) {
			t.Errorf("no %q in\n%s", say, out)
		}
	}
	if !r.Failed || strings.Contains(out, "never") || strings.Contains(out, "skipped") || r.Summary != "done\n" {
		t.Errorf("failed %v, summary %q\n%s", r.Failed, r.Summary, out)
	}
	for job, says := range map[string]string{"inputs": "no input why", "required": "who is required", "foreign": "somebody/else", "condition": "want always()", "expression": "matrix.os", "none": "no job none"} {
		if _, err := GitHub(t.Context(), w, flow, job); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", job, err)
		}
	}
}

func TestGitLab(t *testing.T) {
	w := here(t)
	w.Vars = map[string]string{"FROM_PROJECT": "project"}
	put(t, filepath.Join(w.Dir, "base.yml"), ".base:\n  variables: {A: base, B: base}\n  before_script: [X=1]\n  after_script: ['echo after $X$A']\n", 0o644)
	config := []byte("include: [{local: base.yml}]\njob:\n  extends: .base\n  variables: {B: own}\n  script: ['echo $X $A $B $FROM_PROJECT $CI', 'false', 'echo never']\nbad: {extends: .none, script: ['true']}\n")
	r, err := GitLab(t.Context(), w, config, "job")
	if err != nil {
		t.Fatal(err)
	}
	if out := r.Output(); !r.Failed || !strings.Contains(out, "1 base own project true\n") || !strings.Contains(out, "after base\n") || strings.Contains(out, "never") {
		t.Errorf("failed %v\n%s", r.Failed, out)
	}
	if _, err := GitLab(t.Context(), w, config, "bad"); err == nil || !strings.Contains(err.Error(), ".none") {
		t.Errorf("%v", err)
	}
	if _, err := GitLab(t.Context(), w, []byte("job: {scrip: []}"), "job"); err == nil {
		t.Error("a word that is none passes")
	}
}

func TestTekton(t *testing.T) {
	w := here(t)
	const safe = "securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}"
	task := "metadata: {name: t}\nspec:\n  params: [{name: who}, {name: how, default: loudly}]\n  workspaces: [{name: src, optional: true}]\n  steps:\n  - name: a\n    image: img\n    env: [{name: WHO, value: $(params.who)}, {name: SRC, value: '$(workspaces.src.path)$(workspaces.src.bound)'}]\n    " + safe + "\n    script: |\n      #!/bin/sh\n      echo \"$WHO $(params.how) [$SRC]\"; exit 3\n  - {name: b, image: img, script: echo never, " + safe + "}\n"
	run := "spec: {taskRef: {name: t}, serviceAccountName: ci, params: [{name: who, value: me}]}"
	r, err := Tekton(t.Context(), w, []byte(task), []byte(run), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Failed || r.Steps[0].Code != 3 || r.Steps[0].Output != "me loudly [false]\n" || !r.Steps[1].Skipped {
		t.Errorf("%+v", r)
	}
	if _, err := Tekton(t.Context(), w, []byte(strings.Replace(task, "runAsNonRoot: true", "runAsNonRoot: false", 1)), []byte(run), nil); err == nil || !strings.Contains(err.Error(), "privilege") {
		t.Errorf("%v", err)
	}
	if _, err := Tekton(t.Context(), w, []byte(task), []byte("spec: {taskRef: {name: t}}"), nil); err == nil || !strings.Contains(err.Error(), "params.who") {
		t.Errorf("%v", err)
	}
}

// standIn is a program that plays podnet: it notes how it was called, and prints what
// podnet prints. What is real about it is told in the lab.
const standIn = `#!/bin/sh
printf '%s\n' "$*" >> "$HOME/calls"
printf '%s\n' "$PODNET_KUBECONFIG_DATA" >> "$HOME/data"
case "$1" in
  version) echo "podnet 1.2.3" ;;
  connect) printf '{\n  "connections": [\n    {\n      "tunnel": {\n        "interface": "podnet0",\n        "address": "198.18.0.4/32",\n      "dns": {\n        "listen": [\n          "198.18.0.4:53"\n        ],\n' ;;
  proxy|exec)
    case "$*" in *nowhere*) echo "error: alice may not create pods/portforward in namespace nowhere" >&2; echo "hint: ask" >&2; exit 4 ;; esac
    while [ $# -gt 0 ]; do [ "$1" != -- ] || { shift; export ALL_PROXY=socks5h://127.0.0.1:1055; exec "$@"; }; shift; done
    sleep 60 > /dev/null 2>&1 &
    echo "export ALL_PROXY=socks5h://127.0.0.1:1055 HTTP_PROXY=http://127.0.0.1:1055 PODNET_PROXY_PID=$!" ;;
esac
`

// project is a world with the sources of a job, a stand-in for podnet, and a curl that
// tells which proxy it was given.
func project(t *testing.T) (World, string) {
	w := here(t)
	top, err := filepath.Abs("../..")
	if err == nil {
		err = Project(top, w.Dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	put(t, filepath.Join(bin, "curl"), "#!/bin/sh\ncase \"$*\" in *http:*) echo \"curl $* by $ALL_PROXY\" ;; *) exec "+mustLook(t, "curl")+" \"$@\" ;; esac\n", 0o755)
	w.Env["PATH"] = bin + ":" + w.Env["PATH"]
	stub := filepath.Join(t.TempDir(), "podnet")
	put(t, stub, standIn, 0o755)
	w.Vars = map[string]string{"PODNET_URL": "file://" + stub, "PODNET_SHA256": fmt.Sprintf("%x", sha256.Sum256([]byte(standIn)))}
	return w, top
}

func mustLook(t *testing.T, program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (w World) read(t *testing.T, name string) string {
	text, err := os.ReadFile(filepath.Join(w.Env["HOME"], name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestGitHubRecipe(t *testing.T) {
	w, top := project(t)
	w.Secrets = map[string]string{"KUBECONFIG": "aGVsbG8="}
	flow, err := Recipe(top, "GitHub Actions", 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := GitHub(t.Context(), w, flow, "test")
	if err != nil {
		t.Fatal(err)
	}
	if out := r.Output(); r.Failed || !strings.Contains(out, "curl -fsS http://web.shop by socks5h://127.0.0.1:1055") || !strings.Contains(out, "-x socks5h://127.0.0.1:1055") || !strings.Contains(r.Summary, "socks5h://127.0.0.1:1055") {
		t.Errorf("failed %v, summary %q\n%s", r.Failed, r.Summary, out)
	}
	if calls := w.read(t, "calls"); !strings.Contains(calls, "proxy --detach --listen 127.0.0.1:0 --wait=60s --namespace shop\n") || strings.Contains(calls, "aGVsbG8") || !strings.Contains(w.read(t, "data"), "aGVsbG8=\n") {
		t.Errorf("called\n%swith\n%s", calls, w.read(t, "data"))
	}

	// One that may not, and one that downloads something else: the job fails, says so
	// where people look, and its last step still passes.
	for change, says := range map[string]string{
		"namespace: shop -> namespace: nowhere":                            "::error title=podnet, exit status 4::alice may not create pods/portforward in namespace nowhere",
		"${{ vars.PODNET_SHA256 }} -> 0":                                   "not 0",
		"sha256: ${{ vars.PODNET_SHA256 }} -> version: '9'":                "the input url needs sha256",
		"namespace: shop -> version: 9.9.9":                                "it is version 1.2.3, not 9.9.9",
		"namespace: shop -> mode: carrier-pigeon":                          "want proxy, tun or exec",
		"url: ${{ vars.PODNET_URL }} -> binary: /nonexistent":              "/nonexistent is no program",
		"url: ${{ vars.PODNET_URL }} -> url: 'file:///nonexistent/podnet'": "cannot download file:///nonexistent/podnet",
	} {
		old, new, _ := strings.Cut(change, " -> ")
		r, err := GitHub(t.Context(), w, []byte(strings.Replace(string(flow), old, new, 1)), "test")
		if err != nil {
			t.Fatalf("%s: %v", change, err)
		}
		if out := r.Output(); !r.Failed || !strings.Contains(out, "::error title=podnet") || !strings.Contains(out, says) || r.Steps[len(r.Steps)-1].Code != 0 || r.Steps[len(r.Steps)-1].Skipped {
			t.Errorf("%s: failed %v\n%s", change, r.Failed, out)
		}
	}
}

func TestGitHubModes(t *testing.T) {
	w, top := project(t)
	w.Secrets = map[string]string{"KUBECONFIG": "aGVsbG8="}
	flow, err := Recipe(top, "GitHub Actions", 0)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(w.Env["HOME"], "config"), "", 0o644)
	put(t, filepath.Join(filepath.SplitList(w.Env["PATH"])[0], "sudo"), "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\nexec \"$@\"\n", 0o755)
	with := func(change ...string) *Result {
		t.Helper()
		text := strings.NewReplacer(change...).Replace(string(flow))
		text = strings.Replace(text, "    - run: curl -fsS -x", "    - run: echo out ${{ steps.podnet.outputs.interface }} ${{ steps.podnet.outputs.client-ip }} ${{ steps.podnet.outputs.dns-server }}\n    - run: curl -fsS -x", 1)
		r, err := GitHub(t.Context(), w, []byte(text), "test")
		if err != nil {
			t.Fatal(err)
		}
		if r.Failed {
			t.Errorf("%q: %s", change, r.Output())
		}
		return r
	}
	r := with("namespace: shop", "mode: tun\n        context: lab\n        wait: 5s\n        args: --path udp  -A", "${{ secrets.KUBECONFIG }}", filepath.Join(w.Env["HOME"], "config"))
	if out := r.Output(); !strings.Contains(out, "out podnet0 198.18.0.4 198.18.0.4:53\n") || !strings.Contains(r.Summary, "podnet0") {
		t.Errorf("summary %q\n%s", r.Summary, out)
	}
	if want := "connect -o json --wait=5s --context lab --kubeconfig " + filepath.Join(w.Env["HOME"], "config") + " --path udp -A\n"; !strings.Contains(w.read(t, "calls"), want) {
		t.Errorf("called\n%s", w.read(t, "calls"))
	}
	with("namespace: shop", "mode: exec")
}

func TestGitHubExecRecipe(t *testing.T) {
	w, top := project(t)
	w.Secrets = map[string]string{"KUBECONFIG": "aGVsbG8="}
	flow, err := Recipe(top, "GitHub Actions", 1)
	if err != nil {
		t.Fatal(err)
	}
	r, err := GitHub(t.Context(), w, flow, "test")
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed || !strings.Contains(r.Output(), "curl -fsS http://web.shop by") || !strings.Contains(w.read(t, "data"), "aGVsbG8=\n") {
		t.Errorf("failed %v\n%s", r.Failed, r.Output())
	}
}

func TestGitLabRecipe(t *testing.T) {
	w, top := project(t)
	w.Secrets = map[string]string{"PODNET_KUBECONFIG_DATA": "aGVsbG8="}
	config, err := Recipe(top, "GitLab", 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := GitLab(t.Context(), w, config, "integration")
	if err != nil {
		t.Fatal(err)
	}
	if out := r.Output(); r.Failed || len(r.Steps) != 2 || r.Steps[1].Code != 0 || !strings.Contains(out, "http://web.shop by socks5h://127.0.0.1:1055") {
		t.Errorf("failed %v\n%s", r.Failed, out)
	}
	if calls := w.read(t, "calls"); calls != "proxy --detach\n" {
		t.Errorf("called\n%s", calls)
	}
	w.Vars["PODNET_SHA256"] = strings.Repeat("0", 64)
	if r, err = GitLab(t.Context(), w, config, "integration"); err != nil || !r.Failed || r.Steps[1].Code != 0 {
		t.Errorf("%v, another program: %s", err, r.Output())
	}
}

func TestTektonRecipe(t *testing.T) {
	w, top := project(t)
	put(t, filepath.Join(filepath.SplitList(w.Env["PATH"])[0], "podnet"), standIn, 0o755)
	task, err := Template(top, "tekton/podnet-run.yaml")
	if err != nil {
		t.Fatal(err)
	}
	run, err := Recipe(top, "Tekton", 0)
	if err != nil {
		t.Fatal(err)
	}
	for args, folders := range map[string]map[string]string{
		"proxy --wait=60s --listen 127.0.0.1:0 --namespace shop -- sh -c ":                                nil,
		"proxy --wait=60s --listen 127.0.0.1:0 --namespace shop --kubeconfig /workspace/config -- sh -c ": {"kubeconfig": "/workspace", "source": w.Dir},
	} {
		r, err := Tekton(t.Context(), w, task, run, folders)
		if err != nil {
			t.Fatal(err)
		}
		if out := r.Output(); r.Failed || !strings.Contains(out, "http://web.shop by socks5h://127.0.0.1:1055") || !strings.Contains(w.read(t, "calls"), args) {
			t.Errorf("failed %v\n%scalled\n%s", r.Failed, out, w.read(t, "calls"))
		}
	}
	if name, err := ServiceAccount(run); name != "ci" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}
