package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// modules are the files of those that are wanted and all that they need, in the order
// in which they can be loaded. What the kernel has in itself needs no file. dir is
// where depmod(8) has put modules.dep and modules.builtin.
func modules(dir fs.FS, want []string) ([]string, error) {
	needs, file := map[string][]string{}, map[string]string{}
	err := lines(dir, "modules.dep", func(line string) {
		name, rest, _ := strings.Cut(line, ":")
		file[moduleName(name)], needs[name] = name, strings.Fields(rest)
	})
	builtin := map[string]bool{}
	err = errors.Join(err, lines(dir, "modules.builtin", func(line string) { builtin[moduleName(line)] = true }))
	if err != nil {
		return nil, err
	}
	var order []string
	var add func(string)
	add = func(f string) {
		if slices.Contains(order, f) {
			return
		}
		for _, n := range needs[f] {
			add(n)
		}
		order = append(order, f)
	}
	for _, name := range want {
		switch name = moduleName(name); {
		case builtin[name]:
		case file[name] == "":
			return nil, fmt.Errorf("this kernel has no module %s", name)
		case !strings.HasSuffix(file[name], ".ko"):
			return nil, fmt.Errorf("the module %s is compressed: %s", name, file[name])
		default:
			add(file[name])
		}
	}
	return order, nil
}

// moduleName is how the kernel calls the module in a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func lines(dir fs.FS, name string, each func(string)) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		each(s.Text())
	}
	return s.Err()
}
