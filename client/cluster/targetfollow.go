package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// watchTime is how long one watch lasts; the API server ends it then.
	watchTime = 5 * time.Minute
	// watchGrace is what it gets on top before we believe it dead.
	watchGrace = 30 * time.Second
	// Pauses between attempts that fail.
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
	// steady is how long a watch must have lasted to count as one that worked.
	steady = 10 * time.Second
)

// place is a list of objects: a path, narrowed by a selector.
type place struct {
	path          string
	key, selector string // fieldSelector or labelSelector, and what it selects
	resource      kind
	namespace     string
}

// view is all of a list's items, or why they are not known any better. Items
// that were known before an error are not in it.
type view[T any] struct {
	items []T
	err   error
}

// follow lists, and watches from there on, until ctx is done. What it sends is
// the newest view; one that nobody has taken is replaced.
func follow[T any](ctx context.Context, wg *sync.WaitGroup, c *Client, at place, read func([]byte) (metav1.ObjectMeta, T, error)) <-chan view[T] {
	f := &follower[T]{c: c, at: at, read: read, items: map[types.UID]T{}, out: make(chan view[T], 1)}
	wg.Go(func() { f.run(ctx) })
	return f.out
}

type follower[T any] struct {
	c    *Client
	at   place
	read func([]byte) (metav1.ObjectMeta, T, error)

	items   map[types.UID]T
	version string // resourceVersion of items
	out     chan view[T]
}

func (f *follower[T]) tell(v view[T]) {
	select {
	case <-f.out:
	default:
	}
	f.out <- v // nobody else sends
}

func (f *follower[T]) tellItems() {
	f.tell(view[T]{items: slices.Collect(maps.Values(f.items))})
}

// run alternates between listing and watching. After a watch that ended well it
// goes on from there; after any other it lists anew, for something may have been
// missed. Where watching never works this is asking every few seconds.
func (f *follower[T]) run(ctx context.Context) {
	pause := minPause
	for listed := false; ctx.Err() == nil; {
		began := time.Now()
		var err error
		if !listed {
			err = f.list(ctx)
		}
		if err == nil {
			err = f.watch(ctx)
			listed = err == nil
		} else if ctx.Err() == nil {
			f.tell(view[T]{err: err})
		}
		if time.Since(began) >= steady {
			pause = minPause
			continue
		}
		if sleep(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, maxPause)
	}
}

// list reads all anew.
func (f *follower[T]) list(ctx context.Context) error {
	var list struct {
		Metadata metav1.ListMeta
		Items    []json.RawMessage
	}
	ctx, cancel := withTimeoutAlways(ctx, requestTimeout)
	defer cancel()
	req := f.c.rest.Get().AbsPath(f.at.path).Param(f.at.key, f.at.selector).SetHeader("Accept", "application/json").Do(ctx)
	err := req.Error()
	if err == nil {
		var raw []byte
		if raw, err = req.Raw(); err == nil {
			err = json.Unmarshal(raw, &list)
		}
	}
	if apierrors.IsForbidden(err) {
		return &ForbiddenError{User: f.c.User, Err: err, Ask: f.c.askSteer(f.at.namespace),
			Permission: Permission{Verb: "list", Group: f.at.resource.group, Resource: f.at.resource.plural, Namespace: f.at.namespace}}
	}
	if err != nil {
		return f.c.explain("list the "+f.at.resource.plural+" of", err)
	}
	f.items, f.version = map[types.UID]T{}, list.Metadata.ResourceVersion
	for _, raw := range list.Items {
		meta, item, err := f.read(raw)
		if err != nil {
			return fmt.Errorf("parse the list of %s: %w", f.at.resource.plural, err)
		}
		f.items[meta.UID] = item
	}
	f.tellItems()
	return nil
}

// watch follows the changes since f.version until the API server ends it, which
// is no error.
func (f *follower[T]) watch(ctx context.Context) error {
	ctx, cancel := withTimeoutAlways(ctx, watchTime+watchGrace)
	defer cancel()
	body, err := f.c.rest.Get().AbsPath(f.at.path).Param(f.at.key, f.at.selector).Param("watch", "true").Param("resourceVersion", f.version).
		Param("allowWatchBookmarks", "true").Param("timeoutSeconds", strconv.Itoa(int(watchTime.Seconds()))).
		SetHeader("Accept", "application/json").Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var e metav1.WatchEvent
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := f.take(e); err != nil {
			return err
		}
	}
}

// take applies one event.
func (f *follower[T]) take(e metav1.WatchEvent) error {
	if e.Type == "ERROR" {
		var s metav1.Status
		if err := json.Unmarshal(e.Object.Raw, &s); err != nil {
			return err
		}
		if s.Code == http.StatusGone {
			return apierrors.NewResourceExpired(s.Message)
		}
		return &apierrors.StatusError{ErrStatus: s}
	}
	meta, item, err := f.read(e.Object.Raw)
	if err != nil {
		return err
	}
	f.version = meta.ResourceVersion
	switch e.Type {
	case "ADDED", "MODIFIED":
		f.items[meta.UID] = item
	case "DELETED":
		delete(f.items, meta.UID)
	default:
		return nil // a bookmark
	}
	f.tellItems()
	return nil
}
