package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// proxy passes TCP connections on and counts what goes through, in bytes of
// payload.
type proxy struct {
	listener net.Listener
	target   string
	// up is what clients sent, down what they got.
	up, down atomic.Int64
	running  sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
}

// startProxy listens on loopback for connections to target.
func startProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, open: map[net.Conn]bool{}}
	p.running.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// stop closes all connections.
func (p *proxy) stop() error {
	err := p.listener.Close()
	p.mu.Lock()
	for c := range p.open {
		err = errors.Join(err, ignoreClosed(c.Close()))
	}
	p.mu.Unlock()
	p.running.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // stop has closed it
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close() // which tells the client
			continue
		}
		p.pass(client, server, &p.up)
		p.pass(server, client, &p.down)
	}
}

// pass copies in one direction until either side ends.
func (p *proxy) pass(from, to net.Conn, counter *atomic.Int64) {
	p.mu.Lock()
	p.open[from] = true
	p.mu.Unlock()
	p.running.Go(func() {
		// How a connection ends is for its two ends to judge.
		_, _ = io.Copy(counting{to, counter}, from)
		_, _ = from.Close(), to.Close()
		p.mu.Lock()
		delete(p.open, from)
		p.mu.Unlock()
	})
}

// counting counts what it is about to write, so that whoever has an answer
// finds it counted.
type counting struct {
	io.Writer
	n *atomic.Int64
}

// Write implements io.Writer.
func (c counting) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.Writer.Write(b)
}
