package complete

import (
	"context"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/caller"
)

func TestNoShellWaitsLong(t *testing.T) {
	begun := time.Now()
	env := &caller.Env{}
	connect := &cobra.Command{Use: "connect"}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // shorter than a shell's patience
	defer cancel()
	connect.SetContext(ctx)
	if got, _ := completing(env, nil, func(q *question) []string { <-q.ctx.Done(); return []string{"late"} })(connect, nil, ""); len(got) > 0 {
		t.Errorf("words %q after %v", got, time.Since(begun))
	}
}
