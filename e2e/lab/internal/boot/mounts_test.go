package boot

import "testing"

const separateVar = `21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
30 21 254:3 / /var rw,relatime - ext4 /dev/vdb rw
31 30 254:3 /elsewhere /var/lib/my\040lab rw,relatime - ext4 /dev/vdb rw
`

func TestOriginOfFolder(t *testing.T) {
	mounts := parseMounts(separateVar)
	for dir, want := range map[string][2]string{
		"/var/lib/podnet-lab/machines": {"254:3", "/lib/podnet-lab/machines"},
		"/tmp/lab":                     {"254:0", "/tmp/lab"},
		"/variable":                    {"254:0", "/variable"},
		"/var/lib/my lab/machines":     {"254:3", "/elsewhere/machines"},
	} {
		if device, path := origin(mounts, dir); device != want[0] || path != want[1] {
			t.Errorf("%s: %s %s, want %v", dir, device, path, want)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/", "/a", false}, {"/a", "/", true},
	} {
		if within(c.path, c.dir) != c.want {
			t.Errorf("%s within %s: %v", c.path, c.dir, !c.want)
		}
	}
}

// TestOwnProcessIsNeverMeant: everything of this mount namespace mounts the
// root, and none of it is the lab's.
func TestOwnProcessIsNeverMeant(t *testing.T) {
	if pids := processesMounting(t.TempDir()); len(pids) != 0 {
		t.Errorf("would end %v", pids)
	}
}
