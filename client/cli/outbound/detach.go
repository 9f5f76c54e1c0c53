package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
	"podnet.dev/client/proxy"
)

// Spawned is this program once more, in the background.
type Spawned struct {
	PID int
	// Out is its standard output, Log the file that has the rest of what it says.
	Out io.ReadCloser
	Log string
	// Stop asks it to end.
	Stop func() error
}

// openPorts is where programs come in, as scripts may keep it.
type openPorts struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Address is the proxy's, and Variables are what programs read to find it.
	Address   string            `json:"address,omitempty"`
	Variables map[string]string `json:"variables,omitempty"`
	Forwards  []forwarded       `json:"forwards"`
	PID       int               `json:"pid"`
	Log       string            `json:"log,omitempty"`

	detached bool
}

type forwarded struct {
	Network string `json:"network"`
	Listen  string `json:"listen"`
	To      string `json:"to"`
}

func newOpenPorts(at string, forwards []proxy.Forward) openPorts {
	p := openPorts{APIVersion: localapi.APIVersion, Kind: "Proxy", Address: at, Forwards: []forwarded{}, PID: os.Getpid()}
	if at != "" {
		p.Variables = map[string]string{}
		for _, v := range proxyVariables(at) {
			name, value, _ := strings.Cut(v, "=")
			p.Variables[name] = value
		}
	}
	for _, f := range forwards {
		p.Forwards = append(p.Forwards, forwarded{f.Network, f.Listen.String(), f.To})
	}
	return p
}

// shell is a line for other shells.
func (p openPorts) shell() string {
	var words []string
	if p.Address != "" {
		words = proxyVariables(p.Address)
	}
	if p.detached {
		words = append(words, fmt.Sprintf("PODNET_PROXY_PID=%d", p.PID))
	}
	return "export " + strings.Join(words, " ")
}

// leave starts the same in the background and returns once that is ready, having told
// of it as if it were here.
func (p *proxyRun) leave(ctx context.Context) (err error) {
	// The last of a flag counts.
	child, err := p.env.Spawn(append(slices.Clone(p.env.Args), "--detach=false", "--output="+answer.JSONStream))
	if err != nil {
		return err
	}
	defer child.Out.Close()
	interrupted := context.AfterFunc(ctx, func() { _ = child.Stop() })
	defer interrupted()
	steps := p.env.Progress(p.output)
	defer steps.End()
	lines := json.NewDecoder(child.Out)
	for {
		var line struct{ Kind string }
		var raw json.RawMessage
		if err := lines.Decode(&raw); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return exit.WithLog(&localapi.Error{Code: localapi.CodeInternal, Message: "the proxy ended before it was ready", Hint: "its log says why"}, child.Log)
		}
		err := json.Unmarshal(raw, &line)
		switch {
		case err != nil:
		case line.Kind == "Proxy":
			at := openPorts{detached: true, Log: child.Log}
			if err = json.Unmarshal(raw, &at); err == nil {
				p.tell(at)
				return nil
			}
		case line.Kind == "Error":
			var f caller.Failure
			if err = json.Unmarshal(raw, &f); err == nil {
				return errors.Join(ctx.Err(), exit.WithLog(&f.Error, child.Log))
			}
		default:
			var e localapi.Event
			if err = json.Unmarshal(raw, &e); err == nil {
				steps.Event(e)
			}
		}
		if err != nil {
			return fmt.Errorf("what the proxy in the background says makes no sense: %w", err)
		}
	}
}
