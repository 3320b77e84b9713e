package alerting

import (
	"container/list"
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// item is a notification on its way, before relabelling.
type item struct {
	alert.Notification
	generatorURL string
}

// key tells alerts apart: rules may have equal alerts, which relabelling or
// Alertmanager then joins.
func (i *item) key() string {
	return string(i.Labels.Bytes(nil)) + i.generatorURL
}

// queue holds the newest notification of each alert in the order in which the
// alerts came. When it is full, the oldest goes.
type queue struct {
	capacity int
	// more has an element whenever something was put since the last wait.
	more chan struct{}

	mu    sync.Mutex
	order *list.List
	byKey map[string]*list.Element
}

func newQueue(capacity int) *queue {
	return &queue{
		capacity: capacity,
		more:     make(chan struct{}, 1),
		order:    list.New(),
		byKey:    map[string]*list.Element{},
	}
}

// put queues notifications, each in the place of an older one of the same
// alert. It returns how many it had to drop.
func (q *queue) put(items []*item) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range items {
		if e, ok := q.byKey[i.key()]; ok {
			e.Value = i
			continue
		}
		if q.order.Len() >= q.capacity {
			q.remove(q.order.Front())
			dropped++
		}
		q.byKey[i.key()] = q.order.PushBack(i)
	}
	if q.order.Len() > 0 {
		select {
		case q.more <- struct{}{}:
		default:
		}
	}
	return dropped
}

// bytes is about what the item takes in a request.
func (i *item) bytes() int {
	return int(i.Labels.ByteSize()+i.Annotations.ByteSize()) + len(i.generatorURL)
}

// head returns up to n of the oldest notifications, which stay queued, after
// having dropped those that are no longer true. They are fewer if they would
// take more than maxBytes together, but never none for that.
func (q *queue) head(n, maxBytes int, now time.Time) (batch []*item, expired int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.order.Front(); e != nil && len(batch) < n; {
		next, i := e.Next(), e.Value.(*item)
		if i.Expiry().Before(now) {
			q.remove(e)
			expired++
			e = next
			continue
		}
		if maxBytes -= i.bytes(); maxBytes < 0 && len(batch) > 0 {
			break
		}
		batch = append(batch, i)
		e = next
	}
	return batch, expired
}

// done removes notifications, unless newer ones have taken their places.
func (q *queue) done(batch []*item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range batch {
		if e, ok := q.byKey[i.key()]; ok && e.Value.(*item) == i {
			q.remove(e)
		}
	}
}

// take empties the queue.
func (q *queue) take() []*item {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := make([]*item, 0, q.order.Len())
	for e := q.order.Front(); e != nil; e = e.Next() {
		items = append(items, e.Value.(*item))
	}
	q.order.Init()
	clear(q.byKey)
	return items
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.order.Len()
}

func (q *queue) remove(e *list.Element) {
	delete(q.byKey, q.order.Remove(e).(*item).key())
}
