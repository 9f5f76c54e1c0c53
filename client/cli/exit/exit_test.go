package exit

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"podnet.dev/client/localapi"
)

// TestExitStatusesAreDocumented has each status in docs/cli.md, and no other one there.
func TestExitStatusesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Exit status\n")
	table, _, _ = strings.Cut(table, "\n## ")
	source, err := os.ReadFile("exit.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`\n\t[A-Z]\w+ += (\d+)`).FindAllSubmatch(source, -1)
	if len(codes) < 12 {
		t.Fatalf("found %d statuses", len(codes))
	}
	known := map[string]bool{}
	for _, c := range codes {
		known[string(c[1])] = true
		if !strings.Contains(table, "\n| "+string(c[1])+" |") {
			t.Errorf("docs/cli.md does not say what exit status %s is", c[1])
		}
	}
	for _, row := range regexp.MustCompile(`\n\| (\d+) \|`).FindAllStringSubmatch(table, -1) {
		if !known[row[1]] {
			t.Errorf("docs/cli.md has an exit status %s, podnet has not", row[1])
		}
	}
}

// TestEveryCodeHasItsStatus, those of the design and no more.
func TestEveryCodeHasItsStatus(t *testing.T) {
	for code, want := range map[string]int{
		localapi.CodeInternal: 1, localapi.CodeUsage: 2, localapi.CodeNotConnected: 3, localapi.CodeCredentials: 4, localapi.CodeForbidden: 4,
		localapi.CodeTimeout: 5, localapi.CodeUnreachable: 6, localapi.CodeNotInstalled: 1, localapi.CodeTooOld: 1, localapi.CodeDaemon: 7,
		localapi.CodeConflict: 8, localapi.CodeDNS: 9, localapi.CodeDeploy: 10, localapi.CodePrivilege: 7, localapi.CodeEnded: 4,
		localapi.CodeCanceled: 130, localapi.CodeNotFound: 1,
	} {
		if got := Of(&localapi.Error{Code: code}); got != want {
			t.Errorf("%s: exit status %d, want %d", code, got, want)
		}
	}
}
