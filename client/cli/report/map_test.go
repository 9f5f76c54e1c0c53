package report

import (
	"strings"
	"testing"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/localapi"
)

// TestColumnsOfAMap has a row for each of its networks.
func TestColumnsOfAMap(t *testing.T) {
	var table strings.Builder
	networks := addressMap{Map: []localapi.VirtualPrefix{{Real: "10.96.0.0/16", Virtual: "198.19.0.0/16"}}}
	if err := answer.Print(&table, "custom-columns=REAL:.real,HERE:.virtual", networks); err != nil || table.String() != "REAL           HERE\n10.96.0.0/16   198.19.0.0/16\n" {
		t.Errorf("%v, %s", err, table.String())
	}
}
