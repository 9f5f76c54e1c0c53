package kube

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// validity of certificates. A lab lives for hours; a week survives a weekend.
const validity = 7 * 24 * time.Hour

// authority signs certificates and writes them into a folder as NAME.crt and
// NAME.key.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// identity is what a certificate says of its holder.
type identity struct {
	file   string // NAME of the files
	name   string // common name: the user, to Kubernetes
	groups []string
	hosts  []string // names and addresses of a server
}

// newAuthority makes a certificate authority, written as NAME.crt; its key
// stays in memory, unless keep also writes NAME.key (the controller manager
// signs with it).
func newAuthority(dir, name string, keep bool) (*authority, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template(identity{name: "podnet-lab-" + name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{dir: dir, cert: cert, key: key}
	if err := a.writePEM(name+".crt", "CERTIFICATE", der, 0o644); err != nil || !keep {
		return a, err
	}
	return a, a.writeKey(name+".key", key)
}

// sign makes a key and a certificate for it.
func (a *authority) sign(id identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template(id), a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign certificate of %s: %w", id.name, err)
	}
	if err := a.writePEM(id.file+".crt", "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	return a.writeKey(id.file+".key", key)
}

// keyPair writes a bare key pair, for ServiceAccount tokens.
func (a *authority) keyPair(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := a.writePEM(name+".pub", "PUBLIC KEY", public, 0o644); err != nil {
		return err
	}
	return a.writeKey(name+".key", key)
}

func (a *authority) writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return a.writePEM(file, "EC PRIVATE KEY", der, 0o600)
}

func (a *authority) writePEM(file, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func template(id identity) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: id.name, Organization: id.groups},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, h := range id.hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			t.IPAddresses = append(t.IPAddresses, net.IP(a.AsSlice()))
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}
