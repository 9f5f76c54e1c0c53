package version

import "testing"

func TestSkewed(t *testing.T) {
	for _, c := range []struct {
		a, b   string
		skewed bool
	}{
		{"dev", "dev", false}, {"1.2.0", "1.2.7", false}, {"v1.2.0", "1.2.0-rc.1", false},
		{"1.2.0", "1.3.0", true}, {"2.0.0", "1.0.0", true}, {"dev", "1.2.0", true}, {"", "1.2.0", true}, {"3f2a9c", "77aa01", true},
	} {
		if Skewed(c.a, c.b) != c.skewed || Skewed(c.b, c.a) != c.skewed {
			t.Errorf("%q and %q: want %v", c.a, c.b, c.skewed)
		}
	}
}
