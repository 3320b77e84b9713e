package process

import (
	"bytes"
	"os"
	"strings"
	"sync"
)

const (
	// maxLogBytes bounds a log file; when it is reached the file becomes
	// NAME.1, replacing the one before, and a new one is begun.
	maxLogBytes = 16 << 20
	// maxLineBytes bounds what is kept of the last line.
	maxLineBytes = 512
)

// output is where a child's output goes: a bounded file and the last line in
// memory, to say why it exited.
type output struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
	line []byte // the current, incomplete line
	last string // the last complete line that is not blank
}

func (o *output) open() error {
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.file, o.size = f, 0
	return nil
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
}

// drop closes the file. That can fail only after lines were lost already.
func (o *output) drop() {
	if o.file != nil {
		_ = o.file.Close()
		o.file = nil
	}
}

// Write never fails: a full disk costs log lines, but an error here would
// close the pipe under a child that prints, and so end it.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remember(p)
	if o.size+int64(len(p)) > maxLogBytes {
		o.rotate()
	}
	if o.file != nil {
		n, _ := o.file.Write(p)
		o.size += int64(n)
	}
	return len(p), nil
}

func (o *output) rotate() {
	o.drop()
	if err := os.Rename(o.path, o.path+".1"); err != nil {
		return
	}
	if f, err := os.OpenFile(o.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err == nil {
		o.file, o.size = f, 0
	}
}

func (o *output) remember(p []byte) {
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			break
		}
		o.extend(p[:end])
		if line := strings.TrimSpace(string(o.line)); line != "" {
			o.last = line
		}
		o.line = o.line[:0]
		p = p[end+1:]
	}
	o.extend(p)
}

func (o *output) extend(p []byte) {
	room := maxLineBytes - len(o.line)
	o.line = append(o.line, p[:min(room, len(p))]...)
}

// forget drops the lines in memory, so that the next exit is not explained by
// what an earlier run printed.
func (o *output) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.line, o.last = nil, ""
}

// lastLine returns the last line printed, complete or not.
func (o *output) lastLine() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if line := strings.TrimSpace(string(o.line)); line != "" {
		return line
	}
	return o.last
}
