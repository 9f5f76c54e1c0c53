package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"podnet.dev/internal/peercred"
)

// Operators is the file that says who may have sessions. Root may without it.
type Operators struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Operators  struct {
		// Users and Groups are names or numbers. Those that the host does not know
		// are nobody.
		Users  []string `yaml:"users,omitempty"`
		Groups []string `yaml:"groups,omitempty"`
	} `yaml:"operators"`
}

// What the file says of itself.
const (
	APIVersion = "podnet/v1"
	Kind       = "Helper"
)

// ParseOperators reads the file's text. Unknown keys are errors, with their line.
func ParseOperators(text []byte) (o Operators, err error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&o); err != nil {
		return Operators{}, err
	}
	if err := d.Decode(new(Operators)); err != io.EOF {
		return Operators{}, errors.New("more than one document")
	}
	if o.APIVersion != APIVersion || o.Kind != Kind {
		return Operators{}, fmt.Errorf("apiVersion %q, kind %q: want %s and %s", o.APIVersion, o.Kind, APIVersion, Kind)
	}
	return o, nil
}

// Text is o as a file.
func (o Operators) Text() ([]byte, error) {
	o.APIVersion, o.Kind = APIVersion, Kind
	var b bytes.Buffer
	b.WriteString("# Who may change this machine's network by podnet-helper. Written by podnet setup.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	err := errors.Join(e.Encode(o), e.Close())
	return b.Bytes(), err
}

// ReadOperators reads the file. Where there is none nobody but root is one. A
// file that others than root may write says nothing.
func ReadOperators(path string) (Operators, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Operators{}, nil
	}
	if err != nil {
		return Operators{}, err
	}
	defer f.Close()
	if err := trusted(f); err != nil {
		return Operators{}, fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return Operators{}, err
	}
	o, err := ParseOperators(text)
	if err != nil {
		return Operators{}, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// Include says whether who is one.
func (o Operators) Include(who peercred.Credentials) bool {
	if who.UID == 0 {
		return true
	}
	for _, name := range o.Operators.Users {
		if is(name, who.UID, func() (string, error) { u, err := user.Lookup(name); return idOf(u, err) }) {
			return true
		}
	}
	for _, name := range o.Operators.Groups {
		if slices.ContainsFunc(who.Groups, func(gid int) bool {
			return is(name, gid, func() (string, error) { return gidOf(user.LookupGroup(name)) })
		}) {
			return true
		}
	}
	return false
}

// is compares a name or number with the id of somebody.
func is(name string, id int, lookUp func() (string, error)) bool {
	if name == strconv.Itoa(id) {
		return true
	}
	known, err := lookUp()
	return err == nil && known == strconv.Itoa(id)
}

func idOf(u *user.User, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func gidOf(g *user.Group, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
