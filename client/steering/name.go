package steering

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"podnet.dev/client/localapi"
)

// maxName is the longest name of an object that is made; Kubernetes allows 253.
const maxName = 253

// maxRule leaves room for a number in the 63 characters of a rule's name.
const maxRule = 56

// objectName names a SteeringRule so that its reader sees whose it is. The end
// makes it unique: another Peer of the same user has other objects.
func objectName(user, rule, pod, uid, peer string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{user, rule, uid, peer}, "\x00")))
	end := "-" + hex.EncodeToString(sum[:4])
	name := plain(user) + "-" + rule + "-" + pod
	if len(name) > maxName-len(end) {
		name = name[:maxName-len(end)]
	}
	return strings.TrimRight(name, "-.") + end
}

// plain makes a part of an object's name of anything.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	if s = strings.Trim(s[:min(len(s), 40)], "-"); s == "" {
		return "x"
	}
	return s
}

// ruleName makes a name of what is steered, as web-8080, that none of taken has.
func ruleName(req localapi.SteerRequest, taken func(string) bool) string {
	what := req.Selector
	if _, name, ok := strings.Cut(req.Target, "/"); ok {
		what = name
	}
	port, protocol, _ := strings.Cut(req.Port, "/")
	name := plain(what) + "-" + plain(port)
	if protocol == "udp" {
		name += "-udp"
	}
	return unique(name, taken)
}

// unique makes a rule's name that none of taken has.
func unique(name string, taken func(string) bool) string {
	name = strings.TrimRight(name[:min(len(name), maxRule)], "-")
	for i, try := 2, name; ; i++ {
		if !taken(try) {
			return try
		}
		try = name + "-" + strconv.Itoa(i)
	}
}
