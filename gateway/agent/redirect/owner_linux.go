package redirect

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h.
const tableOwner = 1 << 1

// socket is a netlink socket that lasts. The kernel removes a table that it owns
// when it closes, however that comes about.
type socket struct {
	*nftables.Conn
	raw *netlink.Conn
}

func openSocket() (*socket, error) {
	s := new(socket)
	var err error
	s.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		s.raw = c
		return nil
	}))
	return s, err
}

// own makes an empty table that the socket owns. It reports false where the
// kernel knows no owners, which it does since Linux 5.12. The library makes no
// tables with flags.
func (s *socket) own(table *nftables.Table) (bool, error) {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(table.Name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binaryutil.BigEndian.PutUint32(tableOwner)},
	})
	if err != nil {
		return false, err
	}
	bound := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: general(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)}
	}
	_, err = s.raw.SendMessages([]netlink.Message{
		bound(unix.NFNL_MSG_BATCH_BEGIN),
		{
			Header: netlink.Header{
				Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE,
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl,
			},
			Data: append(general(byte(table.Family), 0), attributes...),
		},
		bound(unix.NFNL_MSG_BATCH_END),
	})
	if err != nil {
		return false, fmt.Errorf("send: %w", err)
	}
	switch _, err = s.raw.Receive(); {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("receive: %w", err)
	}
	return true, nil
}

// general is the header that messages of netfilter have in common.
func general(family byte, resource uint16) []byte {
	return append([]byte{family, unix.NFNETLINK_V0}, binaryutil.BigEndian.PutUint16(resource)...)
}
