package guest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"podnet.dev/client"
	"podnet.dev/client/helper"
	"podnet.dev/client/helper/remote"
	"podnet.dev/client/localapi"
)

// laptopProcess is somebody's podnet, which is asked by lines and answers by lines.
type laptopProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// connect starts a session of somebody's and waits until it is ready.
func (s *scene) connect(uid uint32, path string) error {
	cmd := exec.Command("/init")
	cmd.Env = append(os.Environ(), role+"=laptop", "BY="+path)
	cmd.Stderr = os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.laptop = &laptopProcess{cmd, in, bufio.NewScanner(out)}
	line, err := s.laptop.line()
	if err == nil && line != "ready" {
		err = fmt.Errorf("it says %q", line)
	}
	return err
}

func (p *laptopProcess) line() (string, error) {
	if !p.out.Scan() {
		return "", errors.Join(errors.New("the laptop's podnet has ended"), p.out.Err())
	}
	return p.out.Text(), nil
}

func (p *laptopProcess) status() (c localapi.Connection, err error) {
	if _, err := fmt.Fprintln(p.in, "status"); err != nil {
		return c, err
	}
	line, err := p.line()
	if err == nil {
		err = json.Unmarshal([]byte(line), &c)
	}
	return c, err
}

// kill is kill -9.
func (p *laptopProcess) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// leave disconnects.
func (p *laptopProcess) leave() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

// laptop is a session, as podnet daemon has one.
func laptop(a *away) error {
	host := helper.NewHost(helper.Options{StateDir: stateDir, Guard: []string{helperFile, "guard", "-state", stateDir}, Log: printing(os.Stderr)})
	open := func(ctx context.Context, warn func(string)) (helper.Session, error) {
		return remote.Open(ctx, socketFile, warn)
	}
	if os.Geteuid() == 0 {
		open = host.Open
	}
	ready := make(chan struct{})
	s := client.New(client.Config{
		Request: localapi.ConnectRequest{Namespaces: []string{"shop"}, GatewayNamespace: "podnet-system", LeaseSeconds: 60, Path: os.Getenv("BY"), Device: localapi.DeviceKernel},
		Events: func(e localapi.Event) {
			if e.Type == localapi.EventReady {
				close(ready)
			}
		},
		OpenCluster: func(localapi.Kube) (client.Cluster, error) { return far{a}, nil },
		OpenHelper:  open,
		Log:         printing(os.Stderr),
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-ready:
		fmt.Println("ready")
	case err := <-ended:
		return errors.Join(errors.New("it never was ready"), err)
	}
	go func() {
		defer cancel()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			c, _ := s.Status()
			text, err := json.Marshal(c)
			if err != nil {
				return
			}
			fmt.Println(string(text))
		}
	}()
	return <-ended
}
