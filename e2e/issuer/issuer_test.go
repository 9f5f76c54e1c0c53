package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"podnet.dev/e2e/apiserver"
)

// TestAnAPIServerTrustsIt has a real API server read the discovery and the keys, and
// take and refuse tokens.
func TestAnAPIServerTrustsIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "https://" + l.Addr().String()
	i, err := New(url)
	if err != nil {
		t.Fatal(err)
	}
	cert, caFile := certificate(t)
	web := &http.Server{Handler: i, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	go func() { _ = web.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = web.Close() })

	s := apiserver.Start(t, "--oidc-issuer-url="+url, "--oidc-client-id=lab", "--oidc-ca-file="+caFile,
		"--oidc-username-claim=sub", "--oidc-username-prefix=oidc:", "--oidc-groups-claim=groups")
	// who is what the API server says of the holder of a token.
	who := func(token string) (*authenticationv1.UserInfo, error) {
		config := s.Config()
		config.BearerToken = token
		c, err := client.New(config, client.Options{Scheme: apiserver.Scheme()})
		if err != nil {
			return nil, err
		}
		review := &authenticationv1.SelfSubjectReview{}
		if err := c.Create(t.Context(), review); err != nil {
			return nil, err
		}
		return &review.Status.UserInfo, nil
	}
	token := func(audience string, valid time.Duration) string {
		t.Helper()
		text, err := i.Token("olga", []string{"dev"}, audience, valid)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	apiserver.Eventually(t, 30*time.Second, "the API server knows the issuer's keys", func() error {
		info, err := who(token("lab", time.Minute))
		if err == nil && (info.Username != "oidc:olga" || !slices.Contains(info.Groups, "dev")) {
			err = fmt.Errorf("it is %+v", info)
		}
		return err
	})
	good := token("lab", time.Minute)
	for what, text := range map[string]string{
		"for somebody else": token("else", time.Minute),
		"of yesterday":      token("lab", -time.Minute),
		"changed":           good[:len(good)-8] + "AAAAAAAA",
	} {
		if info, err := who(text); err == nil {
			t.Errorf("a token %s makes %s", what, info.Username)
		}
	}
}

// certificate is one for loopback, signed by itself, and the file that has it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
