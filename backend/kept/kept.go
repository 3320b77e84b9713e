// Package kept is memory that outlives a batch: what was worked out for one slot
// and is true for the next one as well, as long as nobody says otherwise.
//
// A Cache forgets what was not used for the longest time when it weighs more
// than its limit. It never decides whether what it keeps is still true: its
// users compare. A Cache is safe for concurrent use.
package kept

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache keeps values by key.
type Cache[V any] struct {
	limit int64

	mu        sync.Mutex
	items     *simplelru.LRU[string, item[V]]
	weight    int64
	forgotten float64
}

type item[V any] struct {
	value  V
	weight int64
}

// New returns a cache whose values weigh no more than limit together.
func New[V any](limit int64) *Cache[V] {
	// The only error is that of a size that is not positive.
	items, _ := simplelru.NewLRU[string, item[V]](math.MaxInt, nil)
	return &Cache[V]{limit: limit, items: items}
}

// Get returns what is kept under a key, or the zero value.
func (c *Cache[V]) Get(key string) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := c.items.Get(key)
	return i.value
}

// Put keeps a value in place of what was there. What weighs more than the limit
// is not kept.
func (c *Cache[V]) Put(key string, v V, weight int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.items.Peek(key); ok {
		c.weight -= old.weight
		c.items.Remove(key)
	}
	if weight > c.limit {
		c.forgotten++
		return
	}
	c.items.Add(key, item[V]{v, weight})
	c.weight += weight
	for c.weight > c.limit {
		_, oldest, _ := c.items.RemoveOldest()
		c.weight -= oldest.weight
		c.forgotten++
	}
}

// Weight is that of all that is kept.
func (c *Cache[V]) Weight() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return float64(c.weight)
}

// Forgotten is how many values were dropped for lack of room so far.
func (c *Cache[V]) Forgotten() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forgotten
}
