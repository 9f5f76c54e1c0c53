// Package issuer is an OpenID Connect issuer as small as an API server takes one:
// discovery, its keys, and tokens that it signs. It asks nobody for a password.
package issuer

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"time"
)

// Issuer signs tokens with a key of its own.
type Issuer struct {
	url string
	key *rsa.PrivateKey
}

// keyID names the key, as tokens do.
const keyID = "the-only-one"

// New makes an issuer that will be served at url, which has to be https.
func New(url string) (*Issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return &Issuer{url, key}, nil
}

// ServeHTTP answers what OpenID Connect Discovery 1.0 and RFC 7517 have there.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b64 := base64.RawURLEncoding.EncodeToString
	var answer any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer = map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys", "authorization_endpoint": i.url + "/nobody",
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"}}
	case "/keys":
		answer = map[string]any{"keys": []any{map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID,
			"n": b64(i.key.N.Bytes()), "e": b64(big.NewInt(int64(i.key.E)).Bytes())}}}
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// Token is an ID token (RFC 7519, signed as RS256) for somebody, to show to audience,
// valid for a while.
func (i *Issuer) Token(subject string, groups []string, audience string, valid time.Duration) (string, error) {
	now := time.Now()
	part := func(v any) (string, error) {
		b, err := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b), err
	}
	head, err := part(map[string]string{"alg": "RS256", "typ": "JWT", "kid": keyID})
	if err != nil {
		return "", err
	}
	claims, err := part(map[string]any{"iss": i.url, "sub": subject, "aud": audience, "groups": groups,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(valid).Unix()})
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256([]byte(head + "." + claims))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return head + "." + claims + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
