package client

import (
	"strings"

	"podnet.dev/client/localapi"
)

// limitWords say what the names of a gateway's limits mean to the user.
var limitWords = map[string]string{
	"user-connections": "as many connections are open as a user may have",
	"user-opening":     "too many connections are being opened at once",
	"user-datagrams":   "as many flows of UDP are open as a user may have",
	"user-rate":        "connections are opened faster than a user may",
	"flows":            "the gateway has as many flows as it may",
	"memory":           "the gateway is short of memory",
}

// limitWarning is what the user is told of the limits that the gateway says he is at,
// if there are any.
func limitWarning(names []string) (w localapi.Warning, at bool) {
	if len(names) == 0 {
		return w, false
	}
	why := make([]string, len(names))
	for i, name := range names {
		if why[i] = limitWords[name]; why[i] == "" {
			why[i] = "limit " + name // of a gateway that is newer
		}
	}
	more := "podnet install --limit " + names[0] + "=NUMBER"
	if names[0] == "memory" {
		more = "podnet install --memory QUANTITY"
	}
	return localapi.Warning{
		Code: "limit", Severity: "medium", Text: "the gateway has refused some flows within the last minutes: " + strings.Join(why, "; "),
		Hint: "fewer at once, or let the administrator allow more: " + more,
	}, true
}

// heedLimits tells the user of the limits that he is at.
func (k *keeper) heedLimits(names []string) {
	if w, at := limitWarning(names); at {
		k.warn(w)
	} else {
		k.clear("limit", "the gateway refuses no flows any more")
	}
}
