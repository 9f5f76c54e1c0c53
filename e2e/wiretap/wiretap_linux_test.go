package wiretap

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestWhatPassesIsHeard sends a word over the loopback.
func TestWhatPassesIsHeard(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root hears other programs' packets")
	}
	tap, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	c, err := net.Dial("udp", to.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	word := fmt.Sprintf("a word that nobody else says: %d", time.Now().UnixNano())
	if _, err := c.Write([]byte(word)); err != nil {
		t.Fatal(err)
	}
	heard := func(piece string) int { return Holding(tap.Packets(), []byte(piece)) }
	for end := time.Now().Add(5 * time.Second); heard(word) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was not heard")
		}
	}
	if n := heard(word + "!"); n != 0 {
		t.Errorf("what nobody said was heard %d times", n)
	}
	if err := tap.Close(); err != nil {
		t.Error(err)
	}
	before := len(tap.Packets())
	_, _ = c.Write([]byte(word))
	if len(tap.Packets()) != before {
		t.Error("it still listens")
	}
}

func TestShards(t *testing.T) {
	var got []string
	for _, p := range Shards("abcdefghij", 4, 3) {
		got = append(got, string(p))
	}
	if s := strings.Join(got, " "); s != "abcd defg ghij" {
		t.Error(s)
	}
	if n := Holding([][]byte{[]byte("xx defg yy"), []byte("defabcghi"), []byte("abcd defg")}, Shards("abcdefghij", 4, 3)...); n != 2 {
		t.Errorf("%d packets", n)
	}
}
