package desktop

import "podnet.dev/client/tray"

// mark stands before the letter of a shortcut (MENUITEMINFO, dwTypeData).
const mark = "&"

// picture is an icon as the library takes it.
func picture(i tray.Icon) []byte { return ico(i.Draw(32)) }
