// Package steer decides what happens to what reaches a pod's port: whether it is
// the pod's own program's, goes to a developer's laptop, or is copied to one.
//
// It is pure: it opens no connection, reads no clock and knows nothing of
// Kubernetes. The engines that carry the bytes are in http1 and http2; who may
// steer is the gateway's matter.
package steer

import (
	"context"
	"net"
	"time"
)

// Mode says who answers.
type Mode string

const (
	// Steal hands what matches to the laptop, which answers instead of the pod.
	Steal Mode = "steal"
	// Mirror copies what matches to the laptop. The pod answers.
	Mirror Mode = "mirror"
)

// Protocol is what a port speaks below any application.
type Protocol string

// The protocols that can be steered.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// ClientAddress is how a laptop learns the address of the client whose request
// it gets.
type ClientAddress string

const (
	// ClientUnsaid leaves the bytes as the client sent them.
	ClientUnsaid ClientAddress = ""
	// ClientByProxy puts a PROXY protocol v2 header before each connection.
	ClientByProxy ClientAddress = "proxy"
	// ClientByHeader adds an X-Forwarded-For field to each request.
	ClientByHeader ClientAddress = "header"
)

// Rule is one SteeringRule as far as a pod's agent needs it.
type Rule struct {
	// Name is unique in the pod; at most 253 bytes.
	Name string `json:"name"`
	// Owner is the user, for people; at most 1024 bytes, none of them a control
	// character, so that it can stand in a header field.
	Owner string `json:"owner"`
	// Since is when the rule came to be. Older rules come first.
	Since    time.Time `json:"since"`
	Protocol Protocol  `json:"protocol"`
	// Port is the pod's, 1 to 65535.
	Port uint16 `json:"port"`
	Mode Mode   `json:"mode"`
	// Matches are at most MaxMatches; a request must match any of them. Without
	// one the rule is about the whole port, whatever is spoken there. UDP is
	// steered as a whole only.
	Matches []Match `json:"matches,omitempty"`
	// ToApp sends to the pod's own program what the laptop cannot take. A mirror
	// does not need it.
	ToApp bool `json:"toApp,omitempty"`
	// ClientAddress is for TCP; ClientByHeader is for rules with matches only, as
	// nothing can be added to what is not read.
	ClientAddress ClientAddress `json:"clientAddress,omitempty"`
}

// Is reports whether r and o are one rule, perhaps compiled anew. A name may come back
// with another rule, and another laptop, behind it.
func (r *Rule) Is(o *Rule) bool {
	return r.Name == o.Name && r.Owner == o.Owner && r.Since.Equal(o.Since)
}

// Match is a set of conditions on a request, at most MaxConditions and at least
// one. All that is given must hold.
//
// A pattern is at most MaxPattern bytes and one of three kinds:
//
//	alice      exact
//	/api/*     a glob: each * stands for any run of characters, also for none;
//	           all else is literal
//	~^v[12]$   after the ~ a regular expression of package regexp, which holds
//	           wherever it is found in the value; it must not grow beyond 256
//	           steps when compiled, as \w{300} does, nor all of a rule beyond 1024
//
// A literal * or a ~ in front needs a regular expression.
type Match struct {
	// Headers are by field name in any case. Of several fields of one name any
	// may match; a list in one field is one value, with its commas. The Host
	// field has its own pattern below.
	Headers []Condition `json:"headers,omitempty"`
	// Query are parameters by name, name and value decoded. Of several values
	// any may match; a parameter that cannot be decoded matches nothing.
	Query []Condition `json:"query,omitempty"`
	// Method, Host and Path are patterns; "" holds always.
	//
	// Host is without the port, in any case, an IPv6 address in its brackets.
	// Path is without the query and as it was sent: /a%62 is not /ab, as only
	// the program that serves the path knows whether it is.
	Method string `json:"method,omitempty"`
	Host   string `json:"host,omitempty"`
	Path   string `json:"path,omitempty"`
	// GRPC is a pattern for "package.Service/Method"; "" holds always. It holds
	// for a POST with a content type that begins with application/grpc.
	GRPC string `json:"grpc,omitempty"`
}

// Condition asks for a named value. An empty pattern is the empty value; "*" asks
// only that there is one.
type Condition struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// What a rule may have at most.
const (
	MaxMatches    = 16   // in a rule
	MaxConditions = 32   // in a match
	MaxPattern    = 1024 // bytes of a pattern, and of the name of a condition
)

// Head is what is known of a request when it is decided.
type Head struct {
	Method string
	// Target is as it was sent, in origin, absolute or authority form; of HTTP/2
	// it is :path.
	Target string
	// Host is the Host field or :authority as sent, with its port; "" if there is
	// none. The authority of a Target in absolute form is stronger.
	Host string
	// Fields are in the order they came in, without pseudo fields; of trailers
	// nothing is known yet.
	Fields []Field
	// H2 says that it is a stream of HTTP/2.
	H2 bool
	// Upgrade says that the client asks for another protocol on the connection.
	Upgrade bool
}

// Field is a header field, its value without the white space around it.
type Field struct{ Name, Value string }

// Decision is what happens to a request or a connection. The zero Decision leaves
// it to the pod's own program, and tells nobody.
type Decision struct {
	// Steal is the rule whose laptop answers; nil: the pod's own program does.
	Steal *Rule
	// Mirrors are the rules whose laptops get a copy, each once. The slice is
	// not to be changed.
	Mirrors []*Rule
}

// Outlet opens connections for one that was redirected. The agent has it.
type Outlet interface {
	// App connects to the pod's own program.
	App(ctx context.Context) (net.Conn, error)
	// Laptop connects to the laptop of the rule's owner, or fails within 3 s.
	Laptop(ctx context.Context, r *Rule) (net.Conn, error)
}

// Observer is told what was decided. Its method may be called by several
// goroutines at once and must not block.
type Observer interface{ Seen(Seen) }

// Seen is a request or a connection that was decided and is over, for the live
// view and the counters.
type Seen struct {
	// Rule is what it was decided by; nil: it was passed on.
	Rule *Rule
	// Mirror says that this is the copy.
	Mirror bool
	// Method, Target and Host are a request's as in Head; of a connection "".
	Method, Target, Host string
	// Status is the response's, 100 to 999; 0: none.
	Status int
	// Began is when it was decided, and Took the time until it was over.
	Began time.Time
	Took  time.Duration
	// In and Out count bytes from and to the client.
	In, Out int64
	// Err is why it did not come to its end; nil if it did.
	Err error
}

// Limits of what is read of a request before it is decided. Beyond them it is
// the pod's own program's.
const (
	// MaxHead is the size of a head in bytes.
	MaxHead = 64 << 10
	// MaxFields is the number of fields in a head.
	MaxFields = 200
	// HeadTime is how long a head may take from its first byte to its last.
	HeadTime = 2 * time.Second
	// SniffTime is how long a new connection may leave open what it speaks. Then
	// it is Other: in many protocols the server speaks first.
	SniffTime = 2 * time.Second
)

// Header fields by which a person can see what podnet did.
const (
	// SteeredBy is in a response that podnet made for a laptop that gave none; its
	// value is the rule's owner.
	SteeredBy = "X-Podnet-Steered-By"
	// Mirrored is in each request that is a copy; its value is the rule's owner.
	Mirrored = "X-Podnet-Mirrored"
)
