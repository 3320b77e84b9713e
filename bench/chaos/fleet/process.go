package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

const (
	// readyBound is how long a process may take until it is ready, on a loaded
	// machine and with a log to replay.
	readyBound = 2 * time.Minute
	poll       = 100 * time.Millisecond
	// stopBound is how long a process may take to end when it is asked to.
	stopBound = 45 * time.Second
)

// Process is a program that is started, killed and started again on purpose.
// Nothing restarts it by itself.
type Process struct {
	Name string
	// URL is where it serves HTTP.
	URL string

	args   []string
	log    string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts the process; it must not be running.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	started := make(chan error)
	p.exited = make(chan struct{})
	go func() {
		// The kernel ties a child's parent-death signal to the thread that
		// started it, which therefore lives as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p.cmd = exec.Command(p.args[0], p.args[1:]...)
		p.cmd.Stdout, p.cmd.Stderr = log, log
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // How it ends is the caller's doing.
			close(p.exited)
		}
	}()
	return <-started
}

// Running tells whether the process runs, be it stopped by a signal.
func (p *Process) Running() bool {
	if p.exited == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process without a word and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL) // It may have ended.
	<-p.exited
}

// Stop asks the process to end and waits until it has.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopBound):
		p.Kill()
		return fmt.Errorf("%s did not end within %s, its log: %s", p.Name, stopBound, p.log)
	}
}

// WaitReady returns when the process says that it is ready.
func (p *Process) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyBound)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if err := get(ctx, p.URL+"/-/ready", nil); err == nil {
			return nil
		} else if !p.Running() {
			return fmt.Errorf("%s has ended, its log: %s", p.Name, p.log)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready, its log: %s: %w", p.Name, p.log, ctx.Err())
		}
	}
}

// client does not keep connections: processes come and go behind it.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
