// Package browser drives a headless Chromium for tests, by the DevTools protocol over
// a pipe. It knows nothing of what the pages are.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Arguments are those of a Chromium that a test starts, without the program's name. Its
// profile is an empty folder.
func Arguments(profile string) []string {
	return []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + profile,
		"--no-sandbox", // which root cannot have, nor many containers
		"--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-US",
		// It asks nobody for anything but the pages.
		"--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
		"--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider", "--no-proxy-server",
		"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*",
		"about:blank",
	}
}

// Browser is a running Chromium.
type Browser struct {
	cmd    *exec.Cmd
	to     *os.File
	ended  chan struct{} // closed when nothing comes any more
	listen sync.WaitGroup

	mu      sync.Mutex
	last    int
	waiting map[int]chan message
	pages   map[string]*Page // by session
}

type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start runs cmd, which is a Chromium with Arguments or leads to one with our files 3
// and 4.
func Start(cmd *exec.Cmd) (*Browser, error) {
	theirIn, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), to.Close())
	}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	err = cmd.Start()
	_, _ = theirIn.Close(), theirOut.Close()
	if err != nil {
		return nil, errors.Join(err, to.Close(), from.Close())
	}
	b := &Browser{cmd: cmd, to: to, ended: make(chan struct{}), waiting: map[int]chan message{}, pages: map[string]*Page{}}
	b.listen.Go(func() { b.hear(from) })
	return b, nil
}

// Close ends Chromium and waits for it.
func (b *Browser) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = b.call(ctx, "", "Browser.close", nil, nil)
	_ = b.to.Close()
	stop := context.AfterFunc(ctx, func() { _ = b.cmd.Process.Kill() })
	_ = b.cmd.Wait() // killed or not, it is over
	stop()
	b.listen.Wait()
}

// hear reads what Chromium says until it ends.
func (b *Browser) hear(from *os.File) {
	defer close(b.ended)
	defer from.Close()
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m) != nil {
			continue
		}
		b.mu.Lock()
		reply, page := b.waiting[m.ID], b.pages[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case reply != nil:
			reply <- m
		case page != nil:
			page.hear(m)
		}
	}
}

// call has Chromium do something, in a page or by itself.
func (b *Browser) call(ctx context.Context, session, method string, params, result any) error {
	if params == nil {
		params = struct{}{}
	}
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	reply := make(chan message, 1)
	b.mu.Lock()
	b.last++
	m := message{ID: b.last, Session: session, Method: method, Params: raw}
	b.waiting[m.ID] = reply
	text, _ := json.Marshal(m)
	_, err = b.to.Write(append(text, 0))
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m = <-reply:
	case <-b.ended:
		return fmt.Errorf("%s: the browser has ended", method)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
	switch {
	case m.Error != nil:
		return fmt.Errorf("%s: %s", method, m.Error.Message)
	case result == nil:
		return nil
	}
	return json.Unmarshal(m.Result, result)
}

// Page is one tab.
type Page struct {
	b       *Browser
	session string

	mu         sync.Mutex
	complaints []string
}

// Open makes a tab with a page.
func (b *Browser) Open(ctx context.Context, url string) (*Page, error) {
	var target struct {
		TargetID string `json:"targetId"`
	}
	if err := b.call(ctx, "", "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return nil, err
	}
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	if err := b.call(ctx, "", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached); err != nil {
		return nil, err
	}
	p := &Page{b: b, session: attached.SessionID}
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		if err := p.call(ctx, domain+".enable", nil, nil); err != nil {
			return nil, err
		}
	}
	return p, p.Go(ctx, url)
}

func (p *Page) call(ctx context.Context, method string, params, result any) error {
	return p.b.call(ctx, p.session, method, params, result)
}

// hear notes what the page complains about: errors of its scripts and of its policy.
func (p *Page) hear(m message) {
	var text struct {
		Entry            struct{ Level, Text, URL string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if json.Unmarshal(m.Params, &text) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case m.Method == "Log.entryAdded" && text.Entry.Level == "error":
		p.complaints = append(p.complaints, text.Entry.Text+" "+text.Entry.URL)
	case m.Method == "Runtime.exceptionThrown":
		p.complaints = append(p.complaints, text.ExceptionDetails.Text+" "+text.ExceptionDetails.Exception.Description)
	}
}

// Complaints are the errors that the browser has found in the page so far.
func (p *Page) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.complaints)
}

// Go loads a page and waits until it is there.
func (p *Page) Go(ctx context.Context, url string) error {
	var r struct {
		ErrorText string `json:"errorText"`
	}
	if err := p.call(ctx, "Page.navigate", map[string]any{"url": url}, &r); err != nil {
		return err
	}
	if r.ErrorText != "" {
		return fmt.Errorf("load %s: %s", url, r.ErrorText)
	}
	return p.Until(ctx, `document.readyState === "complete"`)
}

// Eval has the page evaluate an expression, which may be a promise.
func (p *Page) Eval(ctx context.Context, expression string, result any) error {
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	err := p.call(ctx, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true}, &r)
	switch {
	case err != nil:
		return err
	case r.ExceptionDetails != nil:
		return fmt.Errorf("evaluate %s: %s", expression, r.ExceptionDetails.Exception.Description)
	case result == nil || r.Result.Value == nil:
		return nil
	}
	return json.Unmarshal(r.Result.Value, result)
}

// Until waits until an expression is true; a page that is just being loaded has none.
func (p *Page) Until(ctx context.Context, expression string) error {
	for {
		var yes bool
		err := p.Eval(ctx, "!!("+expression+")", &yes)
		if err == nil && yes {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("never: %s (%w)", expression, errors.Join(ctx.Err(), err))
		}
	}
}

// keys are those that Press knows, with their numbers and what they type.
var keys = map[string]struct {
	code int
	text string
}{"Tab": {9, ""}, "Enter": {13, "\r"}, " ": {32, " "}, "Escape": {27, ""}}

// Press presses a key and lets it go.
func (p *Page) Press(ctx context.Context, key string) error {
	k, known := keys[key]
	if !known {
		return fmt.Errorf("no key %q", key)
	}
	e := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": k.code, "text": k.text}
	if key == " " {
		e["code"] = "Space"
	}
	if err := p.call(ctx, "Input.dispatchKeyEvent", e, nil); err != nil {
		return err
	}
	e["type"] = "keyUp"
	delete(e, "text")
	return p.call(ctx, "Input.dispatchKeyEvent", e, nil)
}

// Look sets the size of the window in pixels, and whether the user likes it dark. Nothing
// moves then.
func (p *Page) Look(ctx context.Context, width, height int, dark bool) error {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	if err := p.call(ctx, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}}}, nil); err != nil {
		return err
	}
	return p.call(ctx, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// Scripts turns the page's scripts off or on, from its next load.
func (p *Page) Scripts(ctx context.Context, on bool) error {
	return p.call(ctx, "Emulation.setScriptExecutionDisabled", map[string]any{"value": !on}, nil)
}

// maxPicture is how much of a long page a picture has, in pixels.
const maxPicture = 1400

// Picture writes what the page looks like into a PNG file.
func (p *Page) Picture(ctx context.Context, file string) error {
	var size struct{ Width, Height int }
	if err := p.Eval(ctx, `({width: innerWidth, height: document.documentElement.scrollHeight})`, &size); err != nil {
		return err
	}
	var r struct{ Data string }
	clip := map[string]any{"x": 0, "y": 0, "width": size.Width, "height": min(size.Height, maxPicture), "scale": 1}
	if err := p.call(ctx, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true, "clip": clip}, &r); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o644)
}
