package osdns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
	winreg "golang.org/x/sys/windows/registry"
)

func newManager(ctx context.Context, opts Options) (Manager, error) {
	if err := cleanup(ctx, opts); err != nil {
		return nil, err
	}
	return &nrpt{reg: hklm{}, log: opts.Log}, nil
}

// cleanup removes the rules whose names say that they are ours.
func cleanup(ctx context.Context, opts Options) error {
	return (&nrpt{reg: hklm{}, log: opts.Log}).Set(ctx, nil)
}

func syncDir(string) error { return nil }

// hklm is the registry's HKEY_LOCAL_MACHINE.
type hklm struct{}

func (hklm) Keys(path string) ([]string, error) {
	k, err := winreg.OpenKey(winreg.LOCAL_MACHINE, path, winreg.ENUMERATE_SUB_KEYS)
	if errors.Is(err, winreg.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer k.Close()
	return k.ReadSubKeyNames(-1)
}

func (hklm) Apply(want regKey) error {
	if want.values == nil {
		if err := winreg.DeleteKey(winreg.LOCAL_MACHINE, want.path); err != nil && !errors.Is(err, winreg.ErrNotExist) {
			return fmt.Errorf("delete %s: %w", want.path, err)
		}
		return nil
	}
	k, _, err := winreg.CreateKey(winreg.LOCAL_MACHINE, want.path, winreg.SET_VALUE)
	if err != nil {
		return fmt.Errorf("create %s: %w", want.path, err)
	}
	defer k.Close()
	for name, value := range want.values {
		switch value := value.(type) {
		case string:
			err = k.SetStringValue(name, value)
		case []string:
			err = k.SetStringsValue(name, value)
		case uint32:
			err = k.SetDWordValue(name, value)
		}
		if err != nil {
			return fmt.Errorf("set %s of %s: %w", name, want.path, err)
		}
	}
	return nil
}

func (hklm) SetSearch(link string, domains []string) error {
	all, err := adapters()
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.name != link {
			continue
		}
		path := `SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces\` + a.guid
		k, err := winreg.OpenKey(winreg.LOCAL_MACHINE, path, winreg.SET_VALUE)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		defer k.Close()
		return k.SetStringValue("SearchList", strings.Join(domains, ","))
	}
	return fmt.Errorf("there is no interface %q", link)
}

func (hklm) Servers(without []string) ([]netip.Addr, error) {
	all, err := adapters()
	var out []netip.Addr
	for _, a := range all {
		if !slices.Contains(without, a.name) {
			out = append(out, a.servers...)
		}
	}
	return out, err
}

func (hklm) Refresh(ctx context.Context) error {
	return errors.Join(
		exec.CommandContext(ctx, "ipconfig", "/registerdns").Run(),
		exec.CommandContext(ctx, "ipconfig", "/flushdns").Run(),
	)
}

// adapter is an interface that is up.
type adapter struct {
	name, guid string
	servers    []netip.Addr
}

func adapters() ([]adapter, error) {
	const flags = windows.GAA_FLAG_SKIP_UNICAST | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST
	size := uint32(16 << 10) // as its documentation recommends
	for {
		buf := make([]byte, size)
		first := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0]))
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, first, &size)
		if errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) && size > uint32(len(buf)) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		var all []adapter
		for a := first; a != nil; a = a.Next {
			if a.OperStatus != windows.IfOperStatusUp {
				continue
			}
			one := adapter{name: windows.UTF16PtrToString(a.FriendlyName), guid: windows.BytePtrToString(a.AdapterName)}
			for s := a.FirstDnsServerAddress; s != nil; s = s.Next {
				if ip, ok := netip.AddrFromSlice(s.Address.IP()); ok {
					one.servers = append(one.servers, ip.Unmap())
				}
			}
			all = append(all, one)
		}
		return all, nil
	}
}
