// Package process keeps one child process running: it starts it, waits until
// it is ready, restarts it with a growing delay when it exits, and stops it.
//
// It never decides what runs or in which order, and never exits the program
// that it is part of. A Process has one goroutine, that of Run; its other
// methods may be called from any goroutine at any time. A child is in a
// process group of its own, so that signals of the terminal don't reach it,
// and on Linux it dies with the thread that started it, so that it never
// outlives its parent.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopBound is how long a child that was asked to terminate may take when
	// nobody calls Kill, and how long its output is waited for if a process
	// that it left behind holds the pipe open.
	stopBound = 10 * time.Second
	// maxFailedStarts is how often a child may exit before it was ever ready
	// until WaitReady gives up.
	maxFailedStarts = 3
)

// State is what a process is doing.
type State string

// The states of a process, in the order of its life.
const (
	Waiting    State = "waiting"
	Starting   State = "starting"
	Ready      State = "ready"
	Restarting State = "restarting"
	Stopping   State = "stopping"
	Stopped    State = "stopped"
)

// Spec says what to run.
type Spec struct {
	// Name identifies the process in messages.
	Name string
	// Path is the executable, Args its arguments without the program name.
	// Arguments are visible to every user of the machine: no secrets.
	Path string
	Args []string
	// ReadyURL answers 200 once the process can do its work.
	ReadyURL string
	// LogFile receives what the process prints. It is emptied at the start of
	// Run and bounded in size.
	LogFile string
	// Backoff is the delay between an exit and the next start.
	Backoff Backoff
}

// Status is a snapshot of a process.
type Status struct {
	Name  string
	State State
	// PID is 0 while nothing runs.
	PID int
	// Restarts counts the exits that nobody asked for.
	Restarts int
	// LastExit says how the process last exited unasked, with the last line
	// that it printed; empty if it never did.
	LastExit string
	// NotReady is the last reason why the process was not ready.
	NotReady string
}

// Process is one supervised child process.
type Process struct {
	spec   Spec
	output *output
	logger *slog.Logger

	wasReady chan struct{}
	broken   chan struct{}

	mu     sync.Mutex
	status Status
	cmd    *exec.Cmd
}

// New returns a process that is not started yet.
func New(spec Spec, logger *slog.Logger) *Process {
	return &Process{
		spec:     spec,
		output:   &output{path: spec.LogFile},
		logger:   logger.With("process", spec.Name),
		wasReady: make(chan struct{}),
		broken:   make(chan struct{}),
		status:   Status{Name: spec.Name, State: Waiting},
	}
}

// Run starts the process and restarts it whenever it exits. When ctx ends it
// asks the process to terminate and returns once it has; Kill hurries that.
// Run can be called once.
func (p *Process) Run(ctx context.Context) error {
	if err := p.output.open(); err != nil {
		p.update(func(s *Status) { s.State, s.LastExit = Stopped, err.Error() })
		close(p.broken)
		return fmt.Errorf("open log of %s: %w", p.spec.Name, err)
	}
	defer p.output.close()
	// The kernel ties a child's parent-death signal to the thread that started
	// the child, which therefore has to live as long as the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.supervise(ctx)
	p.update(func(s *Status) { s.State, s.PID = Stopped, 0 })
	return nil
}

func (p *Process) supervise(ctx context.Context) {
	delay := time.Duration(0)
	for ctx.Err() == nil {
		started := time.Now()
		err := p.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		delay = p.spec.Backoff.next(delay, time.Since(started))
		p.exited(err, delay)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}

// runOnce starts the process and returns how it ended.
func (p *Process) runOnce(ctx context.Context) error {
	p.output.forget()
	cmd := exec.CommandContext(ctx, p.spec.Path, p.spec.Args...)
	cmd.Stdout, cmd.Stderr = p.output, p.output
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = stopBound
	cmd.Cancel = func() error {
		p.update(func(s *Status) { s.State = Stopping })
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.started(cmd)
	pollCtx, stopPolling := context.WithCancel(ctx)
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		p.pollReady(pollCtx)
	}()
	err := cmd.Wait()
	stopPolling()
	<-polled
	return err
}

func (p *Process) started(cmd *exec.Cmd) {
	p.update(func(s *Status) {
		p.cmd = cmd
		s.State, s.PID, s.NotReady = Starting, cmd.Process.Pid, ""
	})
	p.logger.Info("started process", "pid", cmd.Process.Pid)
}

func (p *Process) exited(err error, delay time.Duration) {
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	if line := p.output.lastLine(); line != "" {
		how += "; last output: " + line
	}
	restarts := 0
	p.update(func(s *Status) {
		p.cmd = nil
		s.Restarts++
		s.State, s.PID, s.LastExit = Restarting, 0, how
		restarts = s.Restarts
	})
	p.logger.Warn("process exited", "err", how, "restart_in", delay)
	if restarts == maxFailedStarts && !isClosed(p.wasReady) {
		close(p.broken)
	}
}

func (p *Process) update(change func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.status)
}

// Status returns what the process is doing now.
func (p *Process) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// WaitReady returns nil once the process was ready for the first time, and an
// error that says why when it keeps exiting before that or ctx ends.
func (p *Process) WaitReady(ctx context.Context) error {
	select {
	case <-p.wasReady:
		return nil
	case <-p.broken:
		return fmt.Errorf("%s does not start: %s (all of its output: %s)", p.spec.Name, p.Status().LastExit, p.spec.LogFile)
	case <-ctx.Done():
	}
	err := fmt.Errorf("%s is not ready (its output: %s): %w", p.spec.Name, p.spec.LogFile, context.Cause(ctx))
	if why := strings.TrimSpace(p.Status().NotReady); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

// Kill ends the process that runs now, if one does, without letting it clean
// up. Unless Run's context has ended, it is restarted.
func (p *Process) Kill() error {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.spec.Name, err)
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
