package main

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/bench/chaos/verdict"
)

// webhook receives the notifications of a fleet's Alertmanagers.
type webhook struct {
	listener net.Listener
	mu       sync.Mutex
	got      []verdict.Notification
}

func newWebhook(host string) (*webhook, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	w := &webhook{listener: l}
	go func() { _ = http.Serve(l, w) }() // It ends with the listener.
	return w, nil
}

func (w *webhook) url() string { return "http://" + w.listener.Addr().String() }

// ServeHTTP implements http.Handler.
func (w *webhook) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var message struct{ Alerts []verdict.Notification }
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range message.Alerts {
		n.At = time.Now()
		w.got = append(w.got, n)
	}
}

func (w *webhook) received() []verdict.Notification {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}
