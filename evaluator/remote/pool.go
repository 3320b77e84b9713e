package remote

import (
	"context"
	"sync"
	"sync/atomic"
)

// pool bounds the requests that are in progress at one endpoint, over all
// batches.
type pool chan struct{}

// each returns what ask returns for 0 to n-1, in this order. What gets no
// permit before ctx ends is not asked.
func (p pool) each(ctx context.Context, n int, ask func(i int) Result) []Result {
	results := make([]Result, n)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, cap(p)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				results[i] = p.one(ctx, func() Result { return ask(int(i)) })
			}
		})
	}
	workers.Wait()
	return results
}

func (p pool) one(ctx context.Context, ask func() Result) Result {
	select {
	case p <- struct{}{}:
		defer func() { <-p }()
		return ask()
	case <-ctx.Done():
		return Result{Err: contextError(ctx)}
	}
}
