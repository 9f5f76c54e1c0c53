package inbound

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/child"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/progress"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// runSteer makes the rules of a command line and keeps them as long as it says.
func runSteer(cmd *cobra.Command, env *caller.Env, o steerFlags, reqs []localapi.SteerRequest, command []string) error {
	c, kube, err := session.Ensure(cmd.Context(), cmd, env, o.req.Namespace, o.output)
	if err != nil {
		return err
	}
	s := &steered{teller: teller{env: env, output: o.output}, client: c, steps: env.Progress(o.output), start: time.Now()}
	defer s.steps.End()
	for i := range reqs {
		reqs[i].Kube = kube
	}
	run := func() error {
		if !o.detach {
			return s.hold(cmd.Context(), reqs, command)
		}
		rules, err := s.leave(cmd.Context(), reqs)
		if err == nil && answer.ForPrograms(s.output) {
			return answer.Print(env.Out, s.output, localapi.NewSteerList(rules))
		}
		return err
	}
	err = run()
	if err == nil || s.instead == "" || env.Ask == nil {
		return err
	}
	e := httpjson.FromError(err)
	env.PrintError(e)
	if !env.Ask(cmd.Context(), "steer Service "+s.instead+" instead?") {
		return exit.Status(exit.Of(e))
	}
	for i := range reqs {
		reqs[i].Via = localapi.ViaService
	}
	return run()
}

// steered is one run of steer.
type steered struct {
	teller
	client *localapi.Client
	steps  *progress.Progress
	start  time.Time
	// instead is the Service that could be steered where the cluster lets no agent
	// into pods.
	instead string
}

// leave makes rules that stay. When one of them cannot be, those before it go.
func (s *steered) leave(ctx context.Context, reqs []localapi.SteerRequest) (rules []localapi.SteerRule, err error) {
	for _, req := range reqs {
		rule, err := s.client.Steer(ctx, req, s.event)
		if err != nil {
			s.stop(rules)
			return nil, err
		}
		rules = append(rules, rule)
	}
	for _, r := range rules {
		if !answer.ForPrograms(s.output) {
			s.show(r)
		}
	}
	return rules, nil
}

// held is a rule that lives as long as its call.
type held struct {
	ready chan localapi.SteerRule // gets it once
	over  chan error              // and this when it is over
}

// hold makes rules that live until ctx is done or the command ends, and says
// what they take.
func (s *steered) hold(ctx context.Context, reqs []localapi.SteerRequest, command []string) error {
	calls, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	connecting := context.AfterFunc(ctx, hangUp)
	var wg sync.WaitGroup
	defer wg.Wait()
	var rules []localapi.SteerRule
	over := make(chan error, len(reqs))
	defer func() { hangUp(); s.stop(rules) }()
	for _, req := range reqs {
		h := held{make(chan localapi.SteerRule, 1), make(chan error, 1)}
		wg.Go(func() {
			_, err := s.client.Steer(calls, req, func(e localapi.SteerEvent) {
				s.event(e)
				if e.Type == localapi.SteerReady {
					h.ready <- *e.Rule
				}
			})
			h.over <- err
			over <- err
		})
		select {
		case r := <-h.ready:
			rules = append(rules, r)
		case err := <-h.over:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
	for _, r := range rules {
		s.show(r)
	}
	if command != nil {
		connecting() // the command hears of an interrupt itself, and the rules outlive it
		return child.Run(ctx, s.env, command, over, "nothing is steered any more")
	}
	for _, r := range rules {
		wg.Go(func() {
			_ = s.client.Requests(calls, r.Name, true, func(q localapi.SteeredRequest) error { s.request(q); return nil })
		})
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-over:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// stop waits until rules are gone, which may be so already.
func (s *steered) stop(rules []localapi.SteerRule) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	for _, r := range rules {
		_, err := s.client.StopSteering(ctx, r.Name)
		s.stays(r.Name, err)
	}
}

// event tells a step, and heeds what is offered instead.
func (s *steered) event(e localapi.SteerEvent) {
	if e.Type == localapi.SteerInstead {
		s.instead = e.Service
	}
	s.steps.Steer(e, s.start)
}

func (s *steered) show(r localapi.SteerRule) {
	s.tell(r, r.Name, func(w io.Writer) { printRule(w, r, time.Now()) })
}

func (s *steered) request(q localapi.SteeredRequest) {
	s.tell(q, "", func(w io.Writer) { fmt.Fprintln(w, describeRequest(q)) })
}

// newSteerApply makes rules of a file.
func newSteerApply(env *caller.Env) *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the rules of a file, for as long as the session lives",
		Long: `Make the rules of a file, for as long as the session lives. Those that are
there already stay as they are. The file holds YAML or JSON documents:

  apiVersion: podnet/v1
  kind: Steer
  name: cart
  namespace: shop
  target: deploy/web
  port: 8080
  local: 3000
  matches:
  - headers:
    - {name: x-user, value: alice}`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return &localapi.Error{Code: localapi.CodeUsage, Message: "which file?", Hint: "podnet steer apply -f rules.yaml"}
			}
			raw, err := readFile(env.In, file)
			if err != nil {
				return &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "podnet steer apply -f rules.yaml; - means standard input"}
			}
			reqs, err := readRules(raw)
			if err != nil {
				return &localapi.Error{Code: localapi.CodeUsage, Message: file + ": " + err.Error(), Hint: "podnet steer apply --help shows a document"}
			}
			return runSteer(cmd, env, steerFlags{detach: true, output: output, req: localapi.SteerRequest{Namespace: reqs[0].Namespace}}, reqs, nil)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "filename", "f", "", "the file; - means standard input")
	answer.Flag(f, &output, answer.StreamForms, ": how to print the rules")
	env.Kube.AddTo(f)
	return cmd
}

func readFile(in io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(in)
	}
	return os.ReadFile(name)
}
