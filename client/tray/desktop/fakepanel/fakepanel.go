// Package fakepanel is the other side of an icon's bus, for tests: a keeper of icons
// in place of a panel's, and the eyes and the hand of a user.
package fakepanel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

const (
	watcher     = "org.kde.StatusNotifierWatcher"
	watcherPath = dbus.ObjectPath("/StatusNotifierWatcher")
	itemFace    = "org.kde.StatusNotifierItem"
	menuFace    = "com.canonical.dbusmenu"
)

// Panel is told of icons.
type Panel struct {
	bus   *dbus.Conn
	items chan Item
	told  *prop.Properties
}

// registered is the property that has the icons that are known.
const registered = "RegisteredStatusNotifierItems"

// New is a panel on a bus that is not there yet.
func New(bus *dbus.Conn) (*Panel, error) {
	p := &Panel{bus: bus, items: make(chan Item, 8)}
	if err := bus.Export(keeper{p}, watcherPath, watcher); err != nil {
		return nil, err
	}
	var err error
	p.told, err = prop.Export(bus, watcherPath, prop.Map{watcher: {registered: {Value: []string{}}}})
	return p, err
}

// Appear has the panel take its name, Vanish lose it.
func (p *Panel) Appear() error {
	reply, err := p.bus.RequestName(watcher, dbus.NameFlagDoNotQueue)
	if err == nil && reply != dbus.RequestNameReplyPrimaryOwner {
		err = fmt.Errorf("somebody else keeps the icons of this bus")
	}
	return err
}

func (p *Panel) Vanish() error {
	p.told.SetMust(watcher, registered, []string{})
	_, err := p.bus.ReleaseName(watcher)
	return err
}

// Items are the icons that say that they are there.
func (p *Panel) Items() <-chan Item { return p.items }

// keeper is what the bus sees of a Panel.
type keeper struct{ p *Panel }

// RegisterStatusNotifierItem is the call by which an icon says that it is there.
func (k keeper) RegisterStatusNotifierItem(path string, from dbus.Sender) *dbus.Error {
	known := k.p.told.GetMust(watcher, registered).([]string)
	k.p.told.SetMust(watcher, registered, append(slices.Clone(known), string(from)+path))
	k.p.items <- Item{k.p.bus, string(from), dbus.ObjectPath(path)}
	return nil
}

// Item is an icon with its menu.
type Item struct {
	bus   *dbus.Conn
	owner string
	path  dbus.ObjectPath
}

// Find is the icon that a real panel knows whose title or tooltip begins so.
func Find(bus *dbus.Conn) ([]Item, error) {
	v, err := bus.Object(watcher, watcherPath).GetProperty(watcher + "." + registered)
	if err != nil {
		return nil, err
	}
	var names []string
	if err := v.Store(&names); err != nil {
		return nil, err
	}
	var all []Item
	for _, name := range names {
		owner, path, ok := strings.Cut(name, "/")
		if !ok {
			path = "StatusNotifierItem"
		}
		all = append(all, Item{bus, owner, dbus.ObjectPath("/" + path)})
	}
	return all, nil
}

func (it Item) property(name string, into any) error {
	v, err := it.bus.Object(it.owner, it.path).GetProperty(itemFace + "." + name)
	if err != nil {
		return err
	}
	return v.Store(into)
}

// Title is the icon's own.
func (it Item) Title() (title string, err error) {
	return title, it.property("Title", &title)
}

// Color is that of the icon's middle row, the most frequent one that is neither white
// nor clear, as #rrggbb.
func (it Item) Color() (string, error) {
	var maps []struct {
		W, H int32
		Pix  []byte
	}
	if err := it.property("IconPixmap", &maps); err != nil || len(maps) == 0 {
		return "", fmt.Errorf("no pixels: %w", err)
	}
	count := map[string]int{}
	for p := range slices.Chunk(maps[0].Pix, 4) { // alpha, red, green, blue
		if p[0] == 0xff && (p[1] != 0xff || p[2] != 0xff || p[3] != 0xff) {
			count[fmt.Sprintf("#%02x%02x%02x", p[1], p[2], p[3])]++
		}
	}
	best := ""
	for c, n := range count {
		if n > count[best] {
			best = c
		}
	}
	return best, nil
}

// Line is a line of a menu.
type Line struct {
	ID                      int32
	Label                   string
	Enabled, Shown, Checked bool
	Below                   []Line
}

// layout is (ia{sv}av), a line with those below it.
type layout struct {
	ID    int32
	Props map[string]dbus.Variant
	Below []dbus.Variant
}

func (it Item) menu() (dbus.BusObject, error) {
	var path dbus.ObjectPath
	if err := it.property("Menu", &path); err != nil {
		return nil, err
	}
	return it.bus.Object(it.owner, path), nil
}

// Menu is what a user would see.
func (it Item) Menu() ([]Line, error) {
	menu, err := it.menu()
	if err != nil {
		return nil, err
	}
	var revision uint32
	var root layout
	if err := menu.Call(menuFace+".GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &root); err != nil {
		return nil, err
	}
	line, err := read(root)
	return line.Below, err
}

func read(l layout) (Line, error) {
	line := Line{ID: l.ID, Enabled: true, Shown: true}
	if v, ok := l.Props["label"].Value().(string); ok {
		// One underscore marks a letter, two are one to be seen.
		line.Label = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(v, "__", "\x00"), "_", ""), "\x00", "_")
	}
	if v, ok := l.Props["enabled"].Value().(bool); ok {
		line.Enabled = v
	}
	if v, ok := l.Props["visible"].Value().(bool); ok {
		line.Shown = v
	}
	if v, ok := l.Props["toggle-state"].Value().(int32); ok {
		line.Checked = v == 1
	}
	for _, child := range l.Below {
		var c layout
		if err := dbus.Store([]any{child.Value()}, &c); err != nil {
			return line, err
		}
		below, err := read(c)
		if err != nil {
			return line, err
		}
		line.Below = append(line.Below, below)
	}
	return line, nil
}

// Text is a menu as it is seen, a line each, those below indented: lines that cannot
// be clicked in parentheses, checked ones with a star.
func Text(lines []Line) string {
	var w strings.Builder
	write(&w, lines, "")
	return w.String()
}

func write(w *strings.Builder, lines []Line, indent string) {
	for _, l := range lines {
		if !l.Shown {
			continue
		}
		text := l.Label
		if l.Checked {
			text = "* " + text
		}
		if !l.Enabled {
			text = "(" + text + ")"
		}
		fmt.Fprintf(w, "%s%s\n", indent, text)
		write(w, l.Below, indent+"    ")
	}
}

// Click is a click on the line that labels lead to, each of them its line's or the
// beginning of it.
func (it Item) Click(labels ...string) error {
	menu, err := it.menu()
	if err != nil {
		return err
	}
	lines, err := it.Menu()
	if err != nil {
		return err
	}
	var at Line
	for _, label := range labels {
		i := slices.IndexFunc(lines, func(l Line) bool { return l.Shown && l.Enabled && strings.HasPrefix(l.Label, label) })
		if i < 0 {
			return fmt.Errorf("nothing to click that begins with %q in:\n%s", label, Text(lines))
		}
		at, lines = lines[i], lines[i].Below
	}
	return menu.Call(menuFace+".Event", 0, at.ID, "clicked", dbus.MakeVariant(""), uint32(0)).Err
}
