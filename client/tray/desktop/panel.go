package desktop

import (
	"strings"
	"sync"

	"fyne.io/systray"

	"podnet.dev/client/tray"
)

// panel keeps icon and menu as they are told, through the library, which has one of
// them for the whole process.
//
// What is in a menu is never removed: lines get other words, and those that are too
// many are hidden. Libraries on the other side of the bus lose lines when the shape of
// a menu changes often, and the one on this side has clicks of a removed line panic.
type panel struct {
	ready  chan struct{} // closed when the library takes calls
	first  chan struct{} // closed when there is a menu
	clicks chan tray.Action

	mu    sync.Mutex
	shown tray.Menu
	top   []*slot
}

// slot is a line of a menu. Once made it stays.
type slot struct {
	item  *systray.MenuItem // nil: a separator
	shown tray.Item         // without its Items
	below []*slot
}

func newPanel() *panel {
	return &panel{ready: make(chan struct{}), first: make(chan struct{}), clicks: make(chan tray.Action, 16)}
}

// begin lets Show through, and returns when there is a menu: it is asked for next.
func (p *panel) begin() {
	close(p.ready)
	<-p.first
}

// Show makes icon and menu what m says.
func (p *panel) Show(m tray.Menu) {
	<-p.ready
	p.mu.Lock()
	defer p.mu.Unlock()
	begun := p.top != nil
	dress(m, !begun || m.Icon != p.shown.Icon, !begun || m.Title != p.shown.Title)
	p.shown = m
	p.top = p.fill(nil, p.top, m.Items)
	if !begun {
		close(p.first)
	}
}

// dress gives the icon its picture and its title.
func dress(m tray.Menu, icon, title bool) {
	if icon {
		systray.SetIcon(picture(m.Icon))
	}
	if title {
		// Some hosts have the title for a tooltip, and not the tooltip.
		systray.SetTitle(m.Title)
		systray.SetTooltip(m.Title)
	}
}

// dressAgain has picture and title be what they are.
func (p *panel) dressAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.top != nil {
		dress(p.shown, true, true)
	}
}

// again makes the menu anew: a host that comes asks for all of it at once, and the
// library tells a new menu in the order that hosts need.
func (p *panel) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.top != nil {
		systray.ResetMenu()
		p.top = p.fill(nil, nil, p.shown.Items)
	}
}

// fill makes the lines below parent, nil for the top, what items say.
func (p *panel) fill(parent *systray.MenuItem, slots []*slot, items []tray.Item) []*slot {
	kinds, want := make([]tray.Kind, len(slots)), make([]tray.Kind, len(items))
	for i, s := range slots {
		kinds[i] = s.shown.Kind
	}
	for i, it := range items {
		want[i] = it.Kind
	}
	used := map[int]bool{}
	for i, at := range allot(kinds, want) {
		if at == len(slots) {
			slots = append(slots, p.add(parent, items[i]))
		}
		used[at] = true
		p.set(slots[at], items[i])
	}
	for at, s := range slots {
		if !used[at] && s.item != nil {
			hidden := s.shown
			hidden.Hidden, hidden.Do = true, tray.Action{}
			p.set(s, hidden)
		}
	}
	return slots
}

// allot finds for each of want a slot of its kind, in order. One beyond the last of
// have is to be added.
func allot(have, want []tray.Kind) []int {
	out := make([]int, len(want))
	at := 0
	for i, kind := range want {
		for at < len(have) && have[at] != kind {
			at++
		}
		if at == len(have) {
			have = append(have[:at:at], kind)
		}
		out[i] = at
		at++
	}
	return out
}

func (p *panel) add(parent *systray.MenuItem, it tray.Item) *slot {
	s := &slot{shown: tray.Item{Kind: it.Kind, Label: it.Label}}
	label := escape(it.Label)
	switch {
	case it.Kind == tray.Separator && parent == nil:
		systray.AddSeparator()
		return s
	case it.Kind == tray.Separator:
		parent.AddSeparator()
		return s
	case it.Kind == tray.Check && parent == nil:
		s.item = systray.AddMenuItemCheckbox(label, "", false)
	case it.Kind == tray.Check:
		s.item = parent.AddSubMenuItemCheckbox(label, "", false)
	case parent == nil:
		s.item = systray.AddMenuItem(label, "")
	default:
		s.item = parent.AddSubMenuItem(label, "")
	}
	clicked := s.item.ClickedCh
	go func() {
		for range clicked {
			p.click(s)
		}
	}()
	return s
}

func (p *panel) click(s *slot) {
	p.mu.Lock()
	a := s.shown.Do
	p.mu.Unlock()
	if a.Verb == tray.Nothing {
		return
	}
	select {
	case p.clicks <- a:
	default: // nobody clicks that fast, or nobody is there any more
	}
}

// set tells the library what is different.
func (p *panel) set(s *slot, it tray.Item) {
	was := s.shown
	below := it.Items
	s.shown = it
	s.shown.Items = nil
	if s.item == nil {
		return
	}
	if it.Label != was.Label {
		s.item.SetTitle(escape(it.Label))
	}
	if it.Checked != was.Checked {
		if it.Checked {
			s.item.Check()
		} else {
			s.item.Uncheck()
		}
	}
	if it.Disabled != was.Disabled {
		if it.Disabled {
			s.item.Disable()
		} else {
			s.item.Enable()
		}
	}
	if len(below) > 0 {
		s.below = p.fill(s.item, s.below, below)
	}
	if it.Hidden != was.Hidden {
		if it.Hidden {
			s.item.Hide()
		} else {
			s.item.Show()
		}
	}
}

// escape keeps hosts from taking a character for the mark of a shortcut.
func escape(label string) string { return strings.ReplaceAll(label, mark, mark+mark) }
