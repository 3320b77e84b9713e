package gossip

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// wire is memberlist's network without sockets, in which members can be cut
// from each other. All its ports are made first, since it can't take new ones
// while it carries messages.
type wire struct {
	ports []*port
	done  chan struct{}
	mu    sync.Mutex
	cut   map[[2]string]bool
	dead  map[string]bool
}

// port is one address on the wire.
type port struct {
	*memberlist.MockTransport
	wire    *wire
	address string
}

var _ memberlist.NodeAwareTransport = (*port)(nil)

// settleTime is how long goroutines of memberlist may outlive its end.
const settleTime = time.Minute

func newWire(t *testing.T, ports int) *wire {
	t.Helper()
	w := &wire{done: make(chan struct{}), cut: map[[2]string]bool{}, dead: map[string]bool{}}
	t.Cleanup(func() {
		<-time.After(settleTime)
		close(w.done)
	})
	var network memberlist.MockNetwork
	for range ports {
		p := &port{MockTransport: network.NewTransport(""), wire: w}
		ip, n, err := p.FinalAdvertiseAddr("", 0)
		if err != nil {
			t.Fatal(err)
		}
		p.address = (&net.TCPAddr{IP: ip, Port: n}).String()
		w.ports = append(w.ports, p)
	}
	return w
}

// sever cuts the first port from another one, or joins them again.
func (w *wire) sever(other int, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x, y := w.ports[0].address, w.ports[other].address
	w.cut[[2]string{x, y}], w.cut[[2]string{y, x}] = cut, cut
}

// kill loses everything from and to a port from now on.
func (w *wire) kill(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[w.ports[i].address] = true
}

func (w *wire) blocked(from, to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]string{from, to}] || w.dead[from] || w.dead[to]
}

func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	return p.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (p *port) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if p.wire.blocked(p.address, a.Addr) {
		return time.Now(), nil
	}
	// As on a real network the sender doesn't wait: two members that write to
	// each other would do so for ever.
	packet := bytes.Clone(b)
	go func() { _, _ = p.MockTransport.WriteToAddress(packet, memberlist.Address{Addr: a.Addr}) }()
	return time.Now(), nil
}

func (p *port) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return p.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (p *port) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if p.wire.blocked(p.address, a.Addr) {
		return nil, errors.New("connection refused")
	}
	return p.MockTransport.DialAddressTimeout(memberlist.Address{Addr: a.Addr}, timeout)
}

// Shutdown goes on taking what is already on the way here, whose senders would
// wait for ever otherwise.
func (p *port) Shutdown() error {
	p.wire.mu.Lock()
	p.wire.dead[p.address] = true
	p.wire.mu.Unlock()
	go func() {
		for {
			select {
			case <-p.PacketCh():
			case conn := <-p.StreamCh():
				_ = conn.Close()
			case <-p.wire.done:
				return
			}
		}
	}()
	return nil
}

// await waits until the cluster's view satisfies ok, for at most d.
func await(t *testing.T, c *Cluster, d time.Duration, ok func(view string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for !ok(states(c)) {
		select {
		case <-c.Changes():
		case <-ctx.Done():
			t.Fatalf("view of %s is %s after %s", c.cfg.Name, states(c), d)
		}
	}
}
