package localapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"podnet.dev/internal/httpjson"
)

// DNSAnswer is what this machine's programs get for a name, and from whom.
type DNSAnswer struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	// Rcode is NOERROR, NXDOMAIN, SERVFAIL or REFUSED, seldom another one.
	Rcode   string      `json:"rcode"`
	Answers []DNSRecord `json:"answers"`
	// Class is what the name is: zone (in the cluster's zone), alias (in that of
	// DNS.Alias), also (in one of Beyond.AlsoDomains), short (web.shop), single (web), reverse (an address of the cluster), localhost, nowhere (a
	// cluster's name that is not ours) or other.
	Class string `json:"class"`
	// Asked are the questions that it took, in order; none where the proxy knows.
	Asked  []DNSQuestion `json:"asked"`
	TookMs float64       `json:"tookMs"`
}

// DNSRecord is one record of an answer. TTL is in seconds.
type DNSRecord struct {
	Name string `json:"name"`
	TTL  uint32 `json:"ttl"`
	Type string `json:"type"`
	Data string `json:"data"`
}

// DNSQuestion is a question of the proxy to somebody else.
type DNSQuestion struct {
	// Of is cluster, or base: the resolvers that the machine had before.
	Of   string `json:"of"`
	Name string `json:"name"`
	// Rcode is empty when nobody answered; Error says why.
	Rcode string `json:"rcode,omitempty"`
	Error string `json:"error,omitempty"`
	// Server has answered, or Cached: had a moment ago.
	Server string  `json:"server,omitempty"`
	Cached bool    `json:"cached,omitempty"`
	TookMs float64 `json:"tookMs"`
}

// DNSQuery is a question of one of this machine's programs to a session's DNS proxy,
// and what it got.
type DNSQuery struct {
	DNSAnswer
	// Seq counts the questions of one session from 1.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"` // when it came
}

// NamespaceRequest asks for another namespace for short names.
type NamespaceRequest struct {
	Namespace string `json:"namespace"`
}

// AddressRequest asks for a virtual address.
type AddressRequest struct {
	Address string `json:"address"`
}

// OpenAddress lets this machine's programs use a virtual address of the session's that
// no name has given them. Of any other address it is an error of CodeNotFound.
func (c *Client) OpenAddress(ctx context.Context, address string) error {
	return c.do(ctx, http.MethodPost, "/v1/addresses", AddressRequest{address}, &struct{}{})
}

// QueryDNS asks the session's DNS proxy for a name, as this machine's resolver
// would. Without a type it is A, and PTR where name is an address.
func (c *Client) QueryDNS(ctx context.Context, name, qtype string) (DNSAnswer, error) {
	var a DNSAnswer
	return a, c.do(ctx, http.MethodGet, "/v1/dns?"+url.Values{"name": {name}, "type": {qtype}}.Encode(), nil, &a)
}

// DNSQueries calls line with the last questions of this machine's programs that the
// session answered, oldest first, and to follow with those that come, until ctx is
// done, line fails or the session ends; the last is no error. The daemon remembers
// 500 of a session, in memory only.
func (c *Client) DNSQueries(ctx context.Context, follow bool, line func(DNSQuery) error) error {
	path := "/v1/dns/queries"
	if follow {
		path += "?follow=1"
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return c.lines(ctx, httpjson.ReadLines(resp, line))
}

// SetNamespace makes short names those of another namespace of the session. It
// returns when this machine resolves by it.
func (c *Client) SetNamespace(ctx context.Context, namespace string) error {
	return c.do(ctx, http.MethodPost, "/v1/namespace", NamespaceRequest{namespace}, &struct{}{})
}
