package cluster

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"podnet.dev/client/localapi"
)

// PodSet is all pods of a target. Finished ones are left out; those that are
// terminating are in it and say so.
type PodSet struct {
	Pods []Pod // sorted by name
	// Port is the number of the steered port by pod UID; a pod without that port
	// is missing here.
	Port map[string]uint16
	// Err says why Pods may be old or wanting: the API server does not answer,
	// the target is gone (a *NoTargetError), no pod has the port (a *NoPortError).
	Err error
}

// equal says whether nothing that matters has changed.
func (s PodSet) equal(o PodSet) bool {
	return fmt.Sprint(s.Err) == fmt.Sprint(o.Err) && reflect.DeepEqual(s.Pods, o.Pods) && reflect.DeepEqual(s.Port, o.Port)
}

// NoTargetError says that there is nothing of that name.
type NoTargetError struct {
	Target    Target
	Namespace string
}

func (e *NoTargetError) Error() string {
	return fmt.Sprintf("there is no %s in namespace %s", e.Target, e.Namespace)
}
func (e *NoTargetError) Code() string { return localapi.CodeUsage }
func (e *NoTargetError) Hint() string {
	k, _ := kindOf(e.Target.Kind)
	return "kubectl -n " + e.Namespace + " get " + k.plural + " lists what there is; -n names another namespace"
}

// NoPortError says that the target has pods, but none with that port.
type NoPortError struct {
	Target Target
	Port   PortName
	// Have are the ports that there are, as "http (8080)".
	Have []string
}

func (e *NoPortError) Error() string { return fmt.Sprintf("%s has no port %s", e.Target, e.Port) }
func (e *NoPortError) Code() string  { return localapi.CodeUsage }
func (e *NoPortError) Hint() string {
	if len(e.Have) == 0 {
		return "name the port by its number: its pods declare none"
	}
	return "it has " + strings.Join(e.Have, ", ")
}

// WatchPods follows the pods of a target until ctx is done and then closes the
// channel. It sends the whole set at first and whenever it has changed; who
// reads slowly gets the newest. port is the port to steer, in ParsePort's words;
// a Service's port leads to the port of its pods. Empty: no port is asked for, and
// Port says 0 of every pod.
//
// It returns an error when the first look fails: a *NoTargetError, a
// *ForbiddenError, an *UnreachableError. Later ones come with the set.
func (c *Client) WatchPods(ctx context.Context, namespace string, t Target, port string) (<-chan PodSet, error) {
	var p PortName
	if port != "" {
		var err error
		if p, err = ParsePort(port); err != nil {
			return nil, err
		}
	}
	return c.watch(ctx, &podWatch{c: c, namespace: namespace, target: t, port: p})
}

// watch has w look once, and then until ctx is done.
func (c *Client) watch(ctx context.Context, w *podWatch) (<-chan PodSet, error) {
	ctx, cancel := context.WithCancel(ctx)
	if err := w.start(ctx); err != nil {
		cancel()
		w.wg.Wait()
		return nil, err
	}
	out := make(chan PodSet)
	go func() {
		defer close(out)
		defer w.wg.Wait()
		defer cancel()
		w.run(ctx, out)
	}()
	return out, nil
}

// podWatch puts together what it hears of a target and of the pods that the
// target's selector finds.
type podWatch struct {
	c         *Client
	namespace string
	target    Target
	port      PortName
	itself    bool // the target, a Service, in place of its pods
	wg        sync.WaitGroup

	owners <-chan view[owner] // nil without one
	owner  *owner
	// ownerErr and podsErr are why what is known may be old.
	ownerErr, podsErr error

	selector string
	pods     <-chan view[candidate]
	stopPods context.CancelFunc
	found    []candidate
}

// start takes the first look.
func (w *podWatch) start(ctx context.Context) error {
	k, _ := kindOf(w.target.Kind)
	switch {
	case w.target.Selector != "":
		w.followPods(ctx, "labelSelector", w.target.Selector)
	case k.short == "pod":
		w.followPods(ctx, "fieldSelector", "metadata.name="+w.target.Name)
	default:
		w.owners = follow(ctx, &w.wg, w.c, w.place(k, "fieldSelector", "metadata.name="+w.target.Name), readOwner)
		select {
		case v := <-w.owners:
			if v.err != nil {
				return v.err
			}
			w.setOwner(ctx, v)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if w.owner == nil {
			return &NoTargetError{w.target, w.namespace}
		}
		if w.ownerErr != nil {
			return w.ownerErr
		}
		if w.itself {
			return nil
		}
	}
	select {
	case v := <-w.pods:
		if v.err != nil {
			return v.err
		}
		w.found = v.items
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if k.short == "pod" && len(w.found) == 0 {
		return &NoTargetError{w.target, w.namespace}
	}
	return nil
}

func (w *podWatch) place(k kind, key, selector string) place {
	return place{path: k.path(w.namespace), key: key, selector: selector, resource: k, namespace: w.namespace}
}

// followPods leaves what was followed so far.
func (w *podWatch) followPods(ctx context.Context, key, selector string) {
	if w.stopPods != nil {
		w.stopPods()
	}
	ctx, w.stopPods = context.WithCancel(ctx)
	w.selector = selector
	k, _ := kindOf("pod")
	w.pods = follow(ctx, &w.wg, w.c, w.place(k, key, selector), readCandidate)
}

// setOwner takes what was heard of the target itself. The pods follow when its
// selector has changed, as that of a Service may.
func (w *podWatch) setOwner(ctx context.Context, v view[owner]) {
	if w.ownerErr = v.err; v.err != nil {
		return
	}
	w.owner = nil
	if len(v.items) == 0 {
		return
	}
	w.owner = &v.items[0]
	if w.itself {
		return
	}
	selector, err := w.owner.selector(w.target)
	if err != nil {
		w.ownerErr = err
		return
	}
	if w.pods == nil || selector != w.selector {
		w.followPods(ctx, "labelSelector", selector)
	}
}

func (w *podWatch) run(ctx context.Context, out chan<- PodSet) {
	last := w.set()
	send := out
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-w.owners:
			w.setOwner(ctx, v)
		case v := <-w.pods:
			if w.podsErr = v.err; v.err == nil {
				w.found = v.items
			}
		case send <- last:
			send = nil
			continue
		}
		if next := w.set(); !next.equal(last) {
			last, send = next, out
		}
	}
}

// set is what is known now.
func (w *podWatch) set() (s PodSet) {
	if w.itself {
		s = itself(w.target, w.namespace, w.port, w.owner)
	} else {
		s = resolve(w.target, w.namespace, w.port, w.owner, w.found)
	}
	if w.podsErr != nil {
		s.Err = w.podsErr
	}
	if w.ownerErr != nil {
		s.Err = w.ownerErr
	}
	return s
}

// resolve picks the pods that are the target's and finds the port of each.
func resolve(t Target, namespace string, port PortName, o *owner, found []candidate) PodSet {
	s := PodSet{Port: map[string]uint16{}}
	if t.Selector == "" && t.Kind != "pod" && o == nil {
		s.Err = &NoTargetError{t, namespace}
		return s
	}
	for _, p := range found {
		if p.finished || o != nil && !o.owns(t, p) {
			continue
		}
		s.Pods = append(s.Pods, p.Pod)
		if port == (PortName{}) {
			s.Port[p.UID] = 0
		} else if n := portOf(p.Pod, port, o); n != 0 {
			s.Port[p.UID] = n
		}
	}
	slices.SortFunc(s.Pods, func(a, b Pod) int { return strings.Compare(a.Name, b.Name) })
	switch {
	case len(s.Pods) > 0 && len(s.Port) == 0:
		s.Err = &NoPortError{t, port, portsOf(s.Pods, o)}
	case t.Kind == "pod" && len(s.Pods) == 0:
		s.Err = &NoTargetError{t, namespace}
	}
	return s
}
