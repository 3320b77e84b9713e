package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"

	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// process is a worker.
type process struct {
	cmd   *exec.Cmd
	calls *rpc.Client
	at    worker.Endpoint
}

// pipe is the worker's output and input. To close it is to end the input.
type pipe struct {
	io.Reader
	io.WriteCloser
}

// start runs this program as a worker that becomes what s says.
func start(ctx context.Context, s worker.Setup) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, workerCommand)}
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	p.calls = rpc.NewClient(pipe{out, in})
	if err := p.call("Setup", s, &p.at); err != nil {
		return nil, errors.Join(fmt.Errorf("set up %s: %w", s.Kind, err), p.stop())
	}
	return p, nil
}

func (p *process) call(method string, args, reply any) error {
	return p.calls.Call("Worker."+method, args, reply)
}

// stop lets the worker end and waits for it.
func (p *process) stop() error {
	return errors.Join(p.calls.Close(), p.cmd.Wait())
}
