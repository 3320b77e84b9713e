package kubelet

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// restartDelay is the time before a container that has ended starts again.
	restartDelay = time.Second
	// defaultGrace is how long a container may take to end, unless the pod says.
	defaultGrace = 30 * time.Second
)

// container is the one process of a pod.
type container struct {
	pod    *corev1.Pod
	binary string
	// root is the directory that the process takes for "/". It is kept by the
	// pod's name, so what a StatefulSet claims is there again after a
	// replacement.
	root string
	log  string
	// token is that of the service account.
	token []byte
	env   []string

	cmd      *exec.Cmd
	ended    chan struct{}
	endedAt  time.Time
	restarts int
}

func (c *container) spec() *corev1.Container { return &c.pod.Spec.Containers[0] }

// user is the number of the user that the process runs as.
func (c *container) user() int {
	if s := c.pod.Spec.SecurityContext; s != nil && s.RunAsUser != nil {
		return int(*s.RunAsUser)
	}
	return 0
}

// prepare makes the root directory as the image has it.
func (c *container) prepare() error {
	if err := os.MkdirAll(filepath.Join(c.root, "etc"), 0o755); err != nil {
		return err
	}
	entry := filepath.Join(c.root, program(c.spec().Image))
	err := os.Link(c.binary, entry)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// keepRunning starts the process if it does not run, again if it has ended.
func (c *container) keepRunning() error {
	if c.cmd != nil {
		select {
		case <-c.ended:
		default:
			return nil
		}
		if c.endedAt.IsZero() {
			c.endedAt = time.Now()
			c.restarts++
		}
		if time.Since(c.endedAt) < restartDelay {
			return nil
		}
	}
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("/"+program(c.spec().Image), c.arguments()...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = c.env, "/", out, out, confined(c.root, c.user())
	if err := cmd.Start(); err != nil {
		return err
	}
	c.cmd, c.ended, c.endedAt = cmd, make(chan struct{}), time.Time{}
	go func(ended chan struct{}) {
		_ = cmd.Wait() // however it ends, it is started again
		close(ended)
	}(c.ended)
	return nil
}

// confined is a process with another root directory and, of this machine's
// users, one without rights.
func confined(root string, user int) *syscall.SysProcAttr {
	if os.Geteuid() == 0 {
		return &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
	}
	return &syscall.SysProcAttr{
		Chroot: root, Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Getegid(), Size: 1}},
	}
}

// arguments are those of the pod with variables in their places. All addresses
// are those of the pod.
func (c *container) arguments() []string {
	pairs := []string{"=0.0.0.0:", "=" + c.pod.Status.PodIP + ":"}
	for _, e := range c.env {
		name, value, _ := strings.Cut(e, "=")
		pairs = append(pairs, "$("+name+")", value)
	}
	replacer := strings.NewReplacer(pairs...)
	var args []string
	for _, a := range c.spec().Args {
		args = append(args, replacer.Replace(a))
	}
	return args
}

// stop ends the process as the pod wants it and returns when it has ended.
func (c *container) stop() {
	if c.cmd == nil {
		return
	}
	grace := defaultGrace
	if s := c.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(grace):
		c.kill()
	}
}

// kill ends the process at once.
func (c *container) kill() {
	if c.cmd != nil {
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}
