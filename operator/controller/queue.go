package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// queue is a source of requests that come from other reconcilers rather than
// from the API server. Requests before the start are kept.
type queue struct {
	mu      sync.Mutex
	target  workqueue.TypedRateLimitingInterface[reconcile.Request]
	waiting []reconcile.Request
}

// Start implements source.Source.
func (q *queue) Start(_ context.Context, target workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.target = target
	for _, r := range q.waiting {
		target.Add(r)
	}
	q.waiting = nil
	return nil
}

// add asks for a reconcile after a delay, within which further requests for
// the same are one with it.
func (q *queue) add(name types.NamespacedName, delay time.Duration) {
	r := reconcile.Request{NamespacedName: name}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.target == nil {
		q.waiting = append(q.waiting, r)
		return
	}
	q.target.AddAfter(r, delay)
}
