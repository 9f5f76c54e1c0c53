package tunnel

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"podnet.dev/internal/key"
)

// PeerStats is what the device knows about one peer.
type PeerStats struct {
	PublicKey     key.Public
	Endpoint      string    // where packets go now, as the Bind prints it; empty: unknown
	LastHandshake time.Time // zero: none yet
	RxBytes       uint64    // from the peer, encrypted
	TxBytes       uint64    // to the peer, encrypted
}

// parseStats reads the answer to "get=1". It skips what it does not know,
// private and preshared keys among it.
func parseStats(r io.Reader) (port uint16, peers []PeerStats, err error) {
	var sec, nsec int64
	end := func() {
		if n := len(peers); n > 0 && (sec != 0 || nsec != 0) {
			peers[n-1].LastHandshake = time.Unix(sec, nsec)
		}
		sec, nsec = 0, 0
	}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), "=")
		if name == "public_key" {
			end()
			var p PeerStats
			if n, err := hex.Decode(p.PublicKey[:], []byte(value)); err != nil || n != key.Size {
				return 0, nil, fmt.Errorf("read device state: bad public key")
			}
			peers = append(peers, p)
			continue
		}
		if len(peers) == 0 {
			if name == "listen_port" {
				n, perr := strconv.ParseUint(value, 10, 16)
				port, err = uint16(n), perr
			}
		} else {
			p := &peers[len(peers)-1]
			switch name {
			case "endpoint":
				p.Endpoint = value
			case "last_handshake_time_sec":
				sec, err = strconv.ParseInt(value, 10, 64)
			case "last_handshake_time_nsec":
				nsec, err = strconv.ParseInt(value, 10, 64)
			case "rx_bytes":
				p.RxBytes, err = strconv.ParseUint(value, 10, 64)
			case "tx_bytes":
				p.TxBytes, err = strconv.ParseUint(value, 10, 64)
			}
		}
		if err != nil {
			return 0, nil, fmt.Errorf("read device state: %s: %w", name, err)
		}
	}
	end()
	return port, peers, sc.Err()
}
