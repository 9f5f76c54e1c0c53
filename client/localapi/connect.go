package localapi

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Paths, AddressModes and Devices are the words that a ConnectRequest has for its
// Path, its Addresses and its Device, the default first.
var (
	Paths        = []string{"auto", "udp", "apiserver"}
	AddressModes = []string{"auto", "direct", "virtual"}
	Devices      = []string{"auto", DeviceUserspace, DeviceKernel}
)

// Whose WireGuard a session has: podnet's own, in its process, or the kernel's.
const (
	DeviceUserspace = "userspace"
	DeviceKernel    = "kernel"
)

// GatewayNamespace is where podnet is installed unless somebody says otherwise.
const GatewayNamespace = "podnet-system"

// Leases: long enough to ride out an API server's restart, or short enough that a
// killed job is forgotten soon.
const (
	LeaseDefault   = 300 * time.Second
	LeaseEphemeral = 120 * time.Second
	LeaseMin       = 60 * time.Second
	LeaseMax       = 900 * time.Second
)

// maxNamespaces is how many a session opens one by one.
const maxNamespaces = 16

// nameForm is the form of a namespace's name, and of a session's and a profile's
// that a user gives.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// CheckNamespace finds what cannot be the name of a namespace.
func CheckNamespace(name string) error {
	if !nameForm.MatchString(name) {
		return usage(fmt.Sprintf("%q is no name for a namespace", name), "kubectl get namespaces lists them")
	}
	return nil
}

// CheckNamespaces is for those that are to be opened, and the gateway's own.
func CheckNamespaces(named []string, all bool, gateway string) error {
	for _, ns := range append(slices.Clone(named), gateway) {
		if err := CheckNamespace(ns); err != nil {
			return err
		}
	}
	switch {
	case len(named) > maxNamespaces:
		return usage(fmt.Sprintf("%d namespaces are more than %d: open all of them by --all-namespaces", len(named), maxNamespaces), "podnet --help")
	case all && len(named) > 1:
		return usage("--all-namespaces goes with one --namespace at most, the one whose names need no suffix", "podnet --help")
	}
	return nil
}

// CheckSession finds what is no name to give to a session. One that a context gives
// may have any form.
func CheckSession(name string) error {
	if !nameForm.MatchString(name) {
		return usage(fmt.Sprintf("%q is no name for a session", name), "small letters, digits and dashes, as in --name blue")
	}
	return nil
}

// WithDefaults says what the zero values of r mean.
func (r ConnectRequest) WithDefaults() ConnectRequest {
	r.Path, r.Addresses, r.Device = cmp.Or(r.Path, Paths[0]), cmp.Or(r.Addresses, AddressModes[0]), cmp.Or(r.Device, Devices[0])
	r.GatewayNamespace = cmp.Or(r.GatewayNamespace, GatewayNamespace)
	r.LeaseSeconds = cmp.Or(r.LeaseSeconds, int32(LeaseDefault/time.Second))
	return r
}

// Check finds what can be known to be wrong without a cluster, in a request that
// has its defaults. It spells Beyond as a cluster does.
func (r *ConnectRequest) Check() error {
	if err := CheckNamespaces(r.Namespaces, r.AllNamespaces, r.GatewayNamespace); err != nil {
		return err
	}
	lease := time.Duration(r.LeaseSeconds) * time.Second
	switch {
	case !slices.Contains(Paths, r.Path):
		return usage(fmt.Sprintf("path %q: want %s", r.Path, strings.Join(Paths, ", ")), "podnet --help")
	case !slices.Contains(AddressModes, r.Addresses):
		return usage(fmt.Sprintf("addresses %q: want %s", r.Addresses, strings.Join(AddressModes, ", ")), "podnet --help")
	case !slices.Contains(Devices, cmp.Or(r.Device, Devices[0])):
		return usage(fmt.Sprintf("device %q: want %s", r.Device, strings.Join(Devices, ", ")), "podnet --help")
	case r.As != "" && r.Device == DeviceKernel:
		return usage("nothing can leave as "+r.As+" over the kernel's WireGuard device: it takes whatever this machine sends", "--as without --device kernel")
	case lease < LeaseMin || lease > LeaseMax:
		return usage(fmt.Sprintf("lease %v: want %v to %v", lease, LeaseMin, LeaseMax), "podnet --help")
	}
	if err := r.Tidy(); err != nil {
		return err
	}
	if r.As != "" {
		return AsRequest{Target: r.As}.Check()
	}
	return nil
}
