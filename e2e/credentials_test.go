//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"podnet.dev/e2e/audit"
	"podnet.dev/e2e/issuer"
	"podnet.dev/e2e/wiretap"
)

// oidcAddress and oidcAudience are what the lab's API server was told of its issuer:
// see OIDCIssuer in e2e/lab/internal/kube.
const (
	oidcAddress  = "127.0.0.1:6480"
	oidcAudience = "podnet-lab"
)

// A person connects with credentials of a kind, in a kubeconfig of their own.
type person struct {
	kind, user string
	kubeconfig string   // its file
	secrets    []string // what must be on no wire
	steers     bool
}

// sawWork is a session as somebody at the laptop sees it.
type sawWork struct {
	user                      string
	asked, first, last, ended time.Time
}

// TestCredentialsOfAllKinds connects with each kind of credentials that a kubeconfig may
// have while all packets of the gateway's pod, its loopback included, and of a steered
// pod are kept: no byte of a token is among them. The audit log tells of all that.
func TestCredentialsOfAllKinds(t *testing.T) {
	began := time.Now()
	market(t, 1)
	gateway := podsNetwork(t, kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "jsonpath={.status.podIP}").must(t))
	stall := stalls(t)[0]
	taps := map[string]*wiretap.Tap{"the gateway's pod": gateway.tap(t), "a steered pod": podsNetwork(t, stall).tap(t)}
	alice.serveLocally(t, 3000, "laptop")

	people := kinds(t)
	var seen []sawWork
	searched := 0
	for i, p := range people {
		podnet := func(args ...string) command {
			c := alice.cmd(append([]string{"env", "KUBECONFIG=" + p.kubeconfig, filepath.Join(top, "bin/podnet")}, args...)...)
			c.shown = p.kind + ": podnet " + strings.Join(args, " ")
			return c
		}
		t.Cleanup(func() { podnet("disconnect", "--all").try(t) })
		s := sawWork{user: p.user, asked: time.Now()}
		namespaces := []string{"-n", "shop"}
		if p.steers {
			namespaces = append(namespaces, "-n", "market")
		}
		podnet(append([]string{"connect", "--wait", "--path", []string{"apiserver", "udp"}[i%2]}, namespaces...)...).must(t)
		// The request is in the clear where it leaves the gateway: the tap hears well.
		alice.cmd("curl", "-sS", "--max-time", "10", "-o", "/dev/null", "http://web.shop/"+needle(p)).must(t)
		s.first = time.Now()
		if p.steers {
			podnet("steer", "--detach", "-n", "market", "deploy/stall", "8080:3000", "--header", "x-user: olga").must(t)
			for path, answer := range map[string]string{"/": "hello from laptop", "/" + needle(p): ""} {
				want(t, node1.cmd("curl", "-sS", "--max-time", "10", "-H", "x-user: olga", "http://"+stall+":8080"+path).must(t), answer)
			}
			podnet("steer", "stop", "--all").must(t)
		}
		alice.cmd("curl", "-sS", "--max-time", "10", "-o", "/dev/null", "http://web.shop").must(t)
		s.last = time.Now()
		keys := strings.Fields(kubectl("get", "peers", "-n", "podnet-system", "-o", "jsonpath={.items[*].spec.publicKey}").must(t))
		places := alice.leaves(t, began, filepath.Dir(p.kubeconfig))
		podnet("disconnect", "--all").must(t)
		s.ended = time.Now()
		seen = append(seen, s)
		maps.Copy(places, alice.leaves(t, began, filepath.Dir(p.kubeconfig)))
		noSecretIn(t, places, p, keys)
		searched += len(places)
	}

	for where, tap := range taps {
		if err := tap.Close(); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		packets := tap.Packets()
		for _, p := range people {
			if heard := wiretap.Holding(packets, []byte(needle(p))); heard == 0 && (where == "the gateway's pod" || p.steers) {
				t.Errorf("%s: not even the request of %s was heard", where, p.kind)
			}
			for _, secret := range p.secrets {
				if n := wiretap.Holding(packets, wiretap.Shards(secret, 12, 4)...); n > 0 {
					t.Errorf("%s: %d packets have a piece of what %s shows the API server", where, n, p.kind)
				}
			}
		}
		for _, word := range []string{"Authorization:", "authorization:", "Bearer "} {
			if n := wiretap.Holding(packets, []byte(word)); n > 0 {
				t.Errorf("%s: %q is in %d packets", where, word, n)
			}
		}
		report(t, "[9] packets of "+where+" with a piece of a token or a key", fmt.Sprintf("0 of %d", len(packets)))
	}
	report(t, "[28] files, logs and command lines with a token or a private key", fmt.Sprintf("0 of %d", searched))
	report(t, "[9] kinds of credentials that work", strings.Join(kindsOf(people), ", "))
	auditTells(t, began, seen)
}

// needle is what a person asks for, and nobody else.
func needle(p person) string {
	return "needle-of-" + strings.ReplaceAll(strings.ToLower(p.kind), " ", "-")
}

func kindsOf(people []person) (kinds []string) {
	for _, p := range people {
		kinds = append(kinds, p.kind)
	}
	return kinds
}

// tap listens to the network until it is closed.
func (n network) tap(t testing.TB) (tap *wiretap.Tap) {
	t.Helper()
	err := n.do(func() (err error) { tap, err = wiretap.Open(); return err })
	if err != nil {
		t.Fatal(err)
	}
	return tap
}

// kinds makes somebody for each kind of credentials, who may use podnet in shop; who
// comes by OIDC may steer in market as well.
func kinds(t testing.TB) []person {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil { // they are read on the laptop
			t.Fatal(err)
		}
	}
	base := alice.cmd("kubectl", "config", "view", "--minify", "--flatten", "--raw", "-o", "json").must(t)
	// file is alice's kubeconfig with somebody else's credentials in it.
	file := func(name string, user map[string]any) string {
		var config map[string]any
		if err := json.Unmarshal([]byte(base), &config); err != nil {
			t.Fatal(err)
		}
		if user != nil {
			config["users"].([]any)[0].(map[string]any)["user"] = user
		}
		text, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, name+".kubeconfig")
		write(t, at, string(text))
		return at
	}
	// plugin prints a token, as the login helpers of clouds do.
	plugin := func(name, token string) map[string]any {
		script := filepath.Join(dir, name+".sh")
		write(t, script, fmt.Sprintf("#!/bin/sh\necho '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"%s\"}}'\n", token))
		if err := os.Chmod(script, 0o755); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"exec": map[string]any{"apiVersion": "client.authentication.k8s.io/v1", "command": script, "interactiveMode": "Never"}}
	}
	account := func(name string) (token string) {
		kubectl("create", "serviceaccount", "-n", "shop", name).must(t)
		t.Cleanup(func() { kubectl("delete", "serviceaccount", "-n", "shop", name).try(t) })
		bind(t, name, "podnet-system", "--role=podnet-connect", "--serviceaccount=shop:"+name)
		bind(t, name, "shop", "--clusterrole=podnet-user", "--serviceaccount=shop:"+name)
		return kubectl("create", "token", "-n", "shop", name, "--duration=1h").must(t)
	}
	robot, plugged, olga := account("robot"), account("plugged"), oidcToken(t, "olga")
	bind(t, "olga", "shop", "--clusterrole=lab-developer", "--user=oidc:olga")
	for _, role := range []string{"lab-developer", "podnet-steer"} {
		bind(t, "olga-"+role, "market", "--clusterrole="+role, "--user=oidc:olga")
	}
	people := []person{
		{"certificate", "alice", file("alice", nil), []string{keyOf(t, base)}, false},
		{"ServiceAccount token", "system:serviceaccount:shop:robot", file("robot", map[string]any{"token": robot}), []string{robot}, false},
		{"exec plugin", "system:serviceaccount:shop:plugged", file("plugged", plugin("plugged", plugged)), []string{plugged}, false},
		{"OIDC", "oidc:olga", file("olga", plugin("olga", olga)), []string{olga}, true},
	}
	for i, p := range people {
		for _, secret := range p.secrets {
			people[i].secrets = append(people[i].secrets, base64.StdEncoding.EncodeToString([]byte(secret)))
		}
	}
	// The API server looks for the issuer every ten seconds until it is there.
	eventually(t, 30*time.Second, "the API server knows the issuer", func() error {
		r := alice.cmd("kubectl", "--kubeconfig", people[3].kubeconfig, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").try(t)
		if r.stdout != people[3].user {
			return errors.New(r.stdout + r.stderr)
		}
		return nil
	})
	return people
}

// bind makes a RoleBinding for the time of the test.
func bind(t testing.TB, name, namespace string, what ...string) {
	t.Helper()
	kubectl(append([]string{"create", "rolebinding", "-n", namespace, name}, what...)...).must(t)
	t.Cleanup(func() { kubectl("delete", "rolebinding", "-n", namespace, name, "--ignore-not-found").try(t) })
}

// keyOf is the private key of a kubeconfig's user, without its armour.
func keyOf(t testing.TB, kubeconfig string) string {
	t.Helper()
	var config struct {
		Users []struct {
			User struct {
				Key []byte `json:"client-key-data"`
			}
		}
	}
	if err := json.Unmarshal([]byte(kubeconfig), &config); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(config.Users[0].User.Key)
	if block == nil {
		t.Fatal("alice's kubeconfig has no key")
	}
	return string(block.Bytes)
}

// oidcToken runs the issuer that the lab's API server trusts, for the time of the test,
// and gives a token of somebody in group dev.
func oidcToken(t testing.TB, who string) string {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(labFile("pki", "ca.crt"), labFile("pki", "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(oidcAddress)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.ParseIP(host)}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	i, err := issuer.New("https://" + oidcAddress)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: i, TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	l := network("/run/netns/podnet-lab-node1").listen(t, oidcAddress)
	go func() { _ = web.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = web.Close() })
	token, err := i.Token(who, []string{"dev"}, oidcAudience, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// auditTells compares what the API server's audit log tells of the namespace shop since
// began with what was seen at the laptop.
func auditTells(t testing.TB, began time.Time, seen []sawWork) {
	t.Helper()
	log, err := os.Open(labFile("log", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	all, err := audit.Read(log)
	if err != nil {
		t.Fatal(err)
	}
	const tolerance = time.Second // of the log's clock and ours, which are the same
	told := slices.DeleteFunc(all, func(s audit.Span) bool { return s.From.Before(began) || s.Namespace != "shop" })
	var late time.Duration
	right := 0
	for _, s := range seen {
		i := slices.IndexFunc(told, func(a audit.Span) bool { return a.User == s.user })
		if i < 0 {
			t.Errorf("the audit log says nothing of %s, who was there from %v to %v", s.user, s.first, s.last)
			continue
		}
		a := told[i]
		told = slices.Delete(told, i, i+1)
		if a.From.Before(s.asked.Add(-tolerance)) || a.From.After(s.first) || a.Until.Before(s.last) || a.Until.After(s.ended.Add(tolerance)) {
			t.Errorf("the audit log says %v; it was asked for at %v, worked from %v to %v and was ended by %v", a, s.asked, s.first, s.last, s.ended)
			continue
		}
		late = max(late, a.Until.Sub(s.last))
		right++
	}
	for _, a := range told {
		t.Errorf("the audit log tells of what nobody did: %v", a)
	}
	report(t, "[11] sessions that the audit log tells as they were, of "+fmt.Sprint(len(seen)), fmt.Sprintf("%d; their ends at most %v after the last answer", right, late.Round(time.Millisecond)))
}

// leaves is the text of all that podnet could have left something in since an instant,
// by its place: files on the machine but for those in a folder, command lines and
// environments of podnet's processes there, and the gateway's log.
func (m machine) leaves(t testing.TB, since time.Time, but string) map[string][]byte {
	t.Helper()
	places := map[string][]byte{}
	// Some are gone by the time they are read, or grow.
	all, err := m.sh(fmt.Sprintf(`find /etc /run /tmp /var/lib/podnet /var/log "$HOME" -xdev -type f -size -20M -newermt @%d -not -path '%s/*' -print0 2>/dev/null |
		tar -c --null -T - --ignore-failed-read --warning=none 2>/dev/null; true`, since.Unix(), but)).exec(t.Context()).Output()
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(all)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if places[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range m.podnets(t) {
		for _, what := range []string{"cmdline", "environ"} {
			name := fmt.Sprintf("/proc/%d/%s", pid, what)
			if text, err := os.ReadFile(name); err == nil {
				places[name] = text
			}
		}
	}
	places["the gateway's log"] = []byte(kubectl("logs", "-n", "podnet-system", "podnet-gateway-0").must(t))
	return places
}

// keyText is how a WireGuard key is written, by those who do: in base64 or hexadecimal.
var keyText = regexp.MustCompile(`[A-Za-z0-9+/]{43}=|[0-9a-f]{64}`)

// noSecretIn fails the test if a person's secret, or the private key of a tunnel whose
// public key is known, is anywhere.
func noSecretIn(t testing.TB, places map[string][]byte, p person, tunnels []string) {
	t.Helper()
	if len(tunnels) == 0 || len(places) < 5 {
		t.Fatalf("%d tunnels' keys are known, and %d places", len(tunnels), len(places))
	}
	for name, text := range places {
		for _, secret := range p.secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s has what %s shows the API server", name, p.kind)
			}
		}
		for _, written := range keyText.FindAllString(string(text), -1) {
			raw, err := base64.StdEncoding.DecodeString(written)
			if len(written) == 64 {
				raw, err = hex.DecodeString(written)
			}
			if err != nil {
				continue
			}
			if key, err := ecdh.X25519().NewPrivateKey(raw); err == nil && slices.Contains(tunnels, base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())) {
				t.Errorf("%s has the private key of a tunnel", name)
			}
		}
	}
}
