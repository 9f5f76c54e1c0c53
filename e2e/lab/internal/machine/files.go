package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"podnet.dev/e2e/lab/internal/topology"
)

// User is somebody with an account on the laptops and, by certificate, in the
// cluster.
type User struct {
	Name   string
	UID    int      // Unix user on the laptops, unless root is asked for
	Groups []string // in the cluster
}

// Users are the people of the lab. admin may do anything in the cluster.
var Users = []User{
	{Name: "admin", UID: 0, Groups: []string{"system:masters"}},
	{Name: "alice", UID: 21001, Groups: []string{"dev"}},
	{Name: "bob", UID: 21002, Groups: []string{"dev"}},
}

// FindUser finds a user by name.
func FindUser(name string) (User, error) {
	i := slices.IndexFunc(Users, func(u User) bool { return u.Name == name })
	if i < 0 {
		return User{}, fmt.Errorf("no user %q: there are admin, alice and bob", name)
	}
	return Users[i], nil
}

// SearchDomain is what the laptops' DHCP would have given them.
const SearchDomain = "home.example.test"

// files writes the machine's own files into /etc and makes its homes.
func (c Computer) files() error {
	files := map[string]string{
		"/etc/hostname": c.Name + "\n",
		"/etc/hosts":    c.hosts(),
	}
	if c.Kind == topology.Laptop {
		for file, kind := range map[string]string{"/etc/passwd": "passwd", "/etc/group": "group"} {
			have, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			files[file] = withAccounts(string(have), kind, c.State.Home(c.Name, ""))
		}
	}
	if c.Resolved == "" {
		files["/etc/resolv.conf"] = c.ResolvConf()
	}
	for file, content := range files {
		// Removed first: on many hosts resolv.conf is a link to elsewhere.
		if err := os.RemoveAll(file); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if c.Kind == topology.Laptop {
		return c.homes()
	}
	// The host's own container networks, if it has any, are none of the lab's.
	if err := os.RemoveAll(cniDir); err != nil {
		return err
	}
	return os.MkdirAll(cniDir, 0o755)
}

// cniDir is where containerd finds the pods' networks.
const cniDir = "/etc/cni/net.d"

// ResolvConf points to the lab's internet.
func (c Computer) ResolvConf() string {
	s := fmt.Sprintf("nameserver %s\n", topology.Internet4)
	if c.Kind == topology.Laptop {
		s = fmt.Sprintf("search %s\nnameserver %s\noptions timeout:2\n", SearchDomain, topology.Internet4)
	}
	return s
}

func (c Computer) hosts() string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n%s %s\n%s %s\n", c.Addr4, c.Name, c.Addr6, c.Name)
	if c.Kind == topology.Node {
		for _, n := range c.Lab.Of(topology.Node) {
			if n.Name != c.Name {
				fmt.Fprintf(&b, "%s %s\n", n.Addr4, n.Name)
			}
		}
	}
	return b.String()
}

// withAccounts adds the lab's users to a passwd or group file.
func withAccounts(have, kind, homes string) string {
	b := strings.TrimRight(have, "\n") + "\n"
	add := func(name string, id int, home, shell string) {
		if strings.HasPrefix(have, name+":") || strings.Contains(have, "\n"+name+":") {
			return
		}
		if kind == "group" {
			b += fmt.Sprintf("%s:x:%d:\n", name, id)
			return
		}
		b += fmt.Sprintf("%s:x:%d:%d::%s:%s\n", name, id, id, home, shell)
	}
	for _, u := range Users {
		if u.UID != 0 {
			add(u.Name, u.UID, filepath.Join(homes, u.Name), "/bin/bash")
		}
	}
	add("systemd-resolve", 21053, "/", "/usr/sbin/nologin")
	return b
}

// homes makes the users' homes and run-time folders.
func (c Computer) homes() error {
	// Everybody may pass through, and only the user may look into a home.
	if err := os.MkdirAll(c.State.Home(c.Name, ""), 0o755); err != nil {
		return err
	}
	for _, u := range Users {
		home, run := c.State.Home(c.Name, u.Name), RuntimeDir(u)
		if err := os.MkdirAll(filepath.Dir(run), 0o755); err != nil {
			return err
		}
		for _, dir := range []string{home, filepath.Join(home, ".kube"), run} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			if err := os.Chown(dir, u.UID, u.UID); err != nil {
				return err
			}
		}
	}
	return nil
}

// RuntimeDir is the user's XDG_RUNTIME_DIR.
func RuntimeDir(u User) string { return fmt.Sprintf("/run/user/%d", u.UID) }
