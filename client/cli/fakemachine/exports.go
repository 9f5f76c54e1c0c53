package fakemachine

import (
	"context"
	"strings"
	"sync"
	"time"

	"podnet.dev/client/localapi"
)

// Exports lets every device in.
type Exports struct {
	mu    sync.Mutex
	Asked []localapi.ExportRequest
	All   []localapi.Export
	Long  bool // so that no QR code takes it
}

// ExportedConfig is what each gets.
const ExportedConfig = "# for people\n[Interface]\nPrivateKey = abc\n\n[Peer]\nEndpoint = 203.0.113.7:31820\n"

func (f *Exports) Run(ctx context.Context) { <-ctx.Done() }

func (f *Exports) Export(_ context.Context, req localapi.ExportRequest) (localapi.Exported, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Asked = append(f.Asked, req)
	now := time.Now()
	e := localapi.Export{Name: "u1-" + req.Device + "-ab12", Device: req.Device, User: "alice", Namespaces: req.Namespaces, Gateway: "podnet-gateway-0", Made: now,
		ExpiresAt: now.Add(time.Duration(req.LeaseSeconds) * time.Second), Renewed: true}
	f.All = append(f.All, e)
	config := ExportedConfig
	if f.Long {
		config += strings.Repeat("x", 3000)
	}
	return localapi.Exported{Export: e, Config: config}, nil
}

func (f *Exports) List(context.Context, localapi.ExportListRequest) ([]localapi.Export, error) {
	return f.Exports(), nil
}

func (f *Exports) Revoke(_ context.Context, req localapi.ExportRevokeRequest) (names []string, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.All {
		names = append(names, e.Name)
	}
	f.All = nil
	return names, nil
}

func (f *Exports) Exports() []localapi.Export {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]localapi.Export{}, f.All...)
}

func (f *Exports) Renewing() bool { return len(f.Exports()) > 0 }
