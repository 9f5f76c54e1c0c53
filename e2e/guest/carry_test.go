package guest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"

	"podnet.dev/e2e/town"
)

// blob is what goes either way, in bytes: little, for a processor that is emulated.
const blob = 1 << 20

// carried has another program of the machine's take a blob from a Service, by its
// name, and give it one.
func carried() (string, error) {
	before, err := busy()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("/init")
	cmd.Env = append(os.Environ(), role+"=carry")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	after, err := busy()
	return fmt.Sprintf("%s; the machine was busy for %v", bytes.TrimSpace(out), after-before), err
}

// busy is how long the machine's processors have worked (proc_stat(5): user, nice and
// system, irq and softirq, in hundredths of a second).
func busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var n [7]int64
	_, err = fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6])
	return time.Duration(n[0]+n[1]+n[2]+n[5]+n[6]) * 10 * time.Millisecond, err
}

// carry is that program.
func carry(out io.Writer) error {
	down, err := timed(func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/blob?size=%d", town.ShopURL, blob), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, resp.Body)
		if err != nil {
			return err
		}
		if want := resp.Trailer.Get("Sha256"); n != blob || hex.EncodeToString(sum.Sum(nil)) != want {
			return fmt.Errorf("%d bytes came, with another sum than %s", n, want)
		}
		return nil
	})
	if err != nil {
		return err
	}
	up, err := timed(func(ctx context.Context) error {
		sent := bytes.Repeat([]byte("blob"), blob/4)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, town.ShopURL+"/sink", bytes.NewReader(sent))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("%d %x\n", blob, sha256.Sum256(sent)); err == nil && string(said) != want {
			err = fmt.Errorf("the Service has got %s, and not %s", said, want)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%.0f Mbit/s from a Service, %.0f to it", float64(blob)*8/1e6/down.Seconds(), float64(blob)*8/1e6/up.Seconds())
	return err
}

func timed(do func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	begun := time.Now()
	err := do(ctx)
	return time.Since(begun), err
}
