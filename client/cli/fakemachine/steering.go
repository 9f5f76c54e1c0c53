package fakemachine

import (
	"context"
	"slices"
	"sync"
	"time"

	"podnet.dev/client/localapi"
)

// Steering makes every rule that it is asked for, in two pods.
type Steering struct {
	mu      sync.Mutex
	Asked   []localapi.SteerRequest
	SentAs  []localapi.AsRequest
	rules   map[string]localapi.SteerRule
	held    map[string]context.CancelFunc
	Refuse  error
	Instead string // in place of what is refused
	Revoked localapi.RevokeRequest
}

func (f *Steering) Steer(ctx context.Context, req localapi.SteerRequest, say func(localapi.SteerEvent)) error {
	now := time.Now()
	r := localapi.SteerRule{Name: req.Name, Namespace: "shop", Owner: "alice", Target: req.Words(), Via: req.Via, Port: req.Port, Protocol: "tcp", Mode: "steal", Matches: req.Matches,
		Local: req.Local, OnError: "fail", Held: req.Hold, Since: &now, Ready: 2, Inspect: req.Inspect, Others: []localapi.SteerOther{{Owner: "bob", Name: "bobs"}},
		Pods: []localapi.SteerPod{{Name: "web-1", Port: 8080, Address: "10.244.0.7", State: localapi.SteerPodReady}, {Name: "web-2", Port: 8080, State: localapi.SteerPodReady}}}
	if r.Name == "" {
		r.Name = "web-" + req.Port
	}
	if req.Via != "" {
		r.Ready, r.Pods = 1, []localapi.SteerPod{{Name: "web", Port: 80, Address: "10.96.0.7", State: localapi.SteerPodReady, Text: "all is well"}}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.Asked = append(f.Asked, req)
	if f.Refuse != nil && (f.Instead == "" || req.Via == "") {
		f.mu.Unlock()
		if f.Instead != "" {
			say(localapi.SteerEvent{Time: now, Type: localapi.SteerInstead, Service: f.Instead})
		}
		return f.Refuse
	}
	if f.rules == nil {
		f.rules, f.held = map[string]localapi.SteerRule{}, map[string]context.CancelFunc{}
	}
	f.rules[r.Name], f.held[r.Name] = r, cancel
	f.mu.Unlock()
	say(localapi.SteerEvent{Time: now, Type: localapi.SteerTarget, Text: req.Words() + ": 2 pods"})
	say(localapi.SteerEvent{Time: now, Type: localapi.SteerReady, Rule: &r})
	if !req.Hold {
		return nil
	}
	<-ctx.Done()
	f.remove(r.Name)
	return nil
}

// As is a rule named after the target.
func (f *Steering) As(ctx context.Context, req localapi.AsRequest, say func(localapi.SteerEvent)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.SentAs = append(f.SentAs, req)
	if f.Refuse != nil {
		f.mu.Unlock()
		return f.Refuse
	}
	if f.rules == nil {
		f.rules, f.held = map[string]localapi.SteerRule{}, map[string]context.CancelFunc{}
	}
	r := localapi.SteerRule{Name: "as-web", Target: req.Target, Mode: localapi.ModeEgress}
	f.rules[r.Name], f.held[r.Name] = r, cancel
	f.mu.Unlock()
	say(localapi.SteerEvent{Time: time.Now(), Type: localapi.SteerTarget, Text: req.Target + ": 1 pod"})
	say(localapi.SteerEvent{Time: time.Now(), Type: localapi.SteerReady, Rule: &r})
	<-ctx.Done()
	f.remove(r.Name)
	return nil
}

// EndAll ends every rule that is held, as when somebody deletes it.
func (f *Steering) EndAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, end := range f.held {
		end()
	}
}

func (f *Steering) remove(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.rules[name]
	if ok {
		f.held[name]()
		delete(f.rules, name)
	}
	return ok
}

func (f *Steering) Names() (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range f.rules {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (f *Steering) Steered(_ context.Context, all bool, namespace string) ([]localapi.SteerRule, error) {
	var out []localapi.SteerRule
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		out = append(out, r)
	}
	if all {
		out = append(out, localapi.SteerRule{Name: "bobs", Owner: "bob", Namespace: namespace})
	}
	return out, nil
}

func (f *Steering) StopSteering(_ context.Context, name string) ([]string, error) {
	if name != "" {
		if !f.remove(name) {
			return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no rule " + name, Hint: "podnet steer list", Status: 404}
		}
		return []string{name}, nil
	}
	var out []string
	for _, n := range f.Names() {
		f.remove(n)
		out = append(out, n)
	}
	return out, nil
}

func (f *Steering) SteeredRequests(ctx context.Context, rule string, follow bool, begin func(), line func(localapi.SteeredRequest) error) error {
	begin()
	q := localapi.SteeredRequest{Time: time.Now(), Rule: rule, Pod: "web-1", By: "laptop", Method: "GET", Target: "/cart", Status: 200, TookMs: 12.3}
	if err := line(q); err != nil {
		return err
	}
	q.Pod, q.By, q.Method, q.Target, q.Status, q.Error = "web-2", "app", "POST", "/pay", 0, "connection refused at 127.0.0.1:3000"
	if err := line(q); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *Steering) InspectSteering(_ context.Context, rule string) ([]localapi.Inspection, error) {
	if !slices.Contains(f.Names(), rule) {
		return nil, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no rule " + rule, Hint: "podnet steer list", Status: 404}
	}
	return []localapi.Inspection{{Pod: "web-1", Exchanges: []localapi.Exchange{{In: []byte("GET /cart HTTP/1.1\r\n\r\n"), Out: []byte("HTTP/1.1 200 OK\r\n\r\n")}}}}, nil
}

func (f *Steering) ReplaySteered(context.Context, string, localapi.ReplayRequest) (localapi.Inspection, error) {
	return localapi.Inspection{}, nil
}

func (f *Steering) RevokeSteering(_ context.Context, req localapi.RevokeRequest) ([]string, error) {
	f.Revoked = req
	return []string{"bob/" + req.Name}, nil
}
