package machine

import (
	"strings"
	"testing"
)

// TestAccountsAreAddedOnce: a host may know one of the names already.
func TestAccountsAreAddedOnce(t *testing.T) {
	have := "root:x:0:0:root:/root:/bin/bash\nbob:x:1000:1000::/home/bob:/bin/sh"
	got := withAccounts(have, "passwd", "/homes")
	if !strings.HasPrefix(got, have+"\n") {
		t.Errorf("the host's own are gone:\n%s", got)
	}
	if strings.Count(got, "\nbob:") != 1 || !strings.Contains(got, "\nalice:x:21001:21001::/homes/alice:/bin/bash\n") {
		t.Error(got)
	}
	for line := range strings.Lines(got) {
		if strings.Count(line, ":") != 6 {
			t.Errorf("not a line of passwd(5): %q", line)
		}
	}
	if again := withAccounts(got, "passwd", "/homes"); again != got {
		t.Errorf("the second time adds:\n%s", again)
	}
	for line := range strings.Lines(withAccounts("root:x:0:\n", "group", "/homes")) {
		if strings.Count(line, ":") != 3 {
			t.Errorf("not a line of group(5): %q", line)
		}
	}
}

func TestNamesAskResolvedFirst(t *testing.T) {
	got := useResolved("passwd: files\nhosts:  files dns # comment\nnetworks: files\n")
	if got != "passwd: files\nhosts:          files resolve [!UNAVAIL=return] dns\nnetworks: files\n" {
		t.Error(got)
	}
}

func TestUsers(t *testing.T) {
	if _, err := FindUser("mallory"); err == nil || !strings.Contains(err.Error(), "alice") {
		t.Errorf("%v", err)
	}
	if u, err := FindUser("alice"); err != nil || u.UID == 0 {
		t.Errorf("%+v, %v", u, err)
	}
}
