package remote

import (
	"context"
	"errors"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/wire"
)

var errNotYet = errors.New("not on Windows yet")

// Look finds nobody.
func Look(context.Context, string) (wire.Greeting, []wire.Session, error) {
	return wire.Greeting{}, nil, &NoHelperError{errNotYet}
}

// Open finds nobody.
func Open(context.Context, string, func(string)) (helper.Session, error) {
	return nil, &NoHelperError{errNotYet}
}
