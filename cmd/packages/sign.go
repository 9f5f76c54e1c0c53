package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
)

// keyVariable names the file with the SSH key that signs a release.
const keyVariable = "PODNET_RELEASE_KEY"

// sign signs the checksums, and by them all that they list, with the releaser's SSH key:
// ssh-keygen does, so that the key may have a passphrase, or be an agent's or a token's,
// of which o.key is then the public half, and podnet never has it in hand. Everybody with
// OpenSSH 8.1 can verify it.
func (o options) sign(ctx context.Context) error {
	if o.key == "" {
		log.Printf("%s is UNSIGNED: %s names no SSH key", o.out, keyVariable)
		return nil
	}
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-Y", "sign", "-n", "file", "-f", o.key, filepath.Join(o.out, sumsName))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stderr, os.Stderr // it asks for what it needs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("sign the checksums with %s: %w", o.key, err)
	}
	return nil
}
