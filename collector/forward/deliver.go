package forward

import (
	"context"
	"slices"
	"time"
)

// splits bounds the requests into which one is split whose samples are
// refused.
const splits = 32

// deliverAll sends items in as many requests as they need, one after the other.
func (d *destination) deliverAll(ctx context.Context, items []item) error {
	for some := range slices.Chunk(items, d.most) {
		budget := splits
		if err := d.deliver(ctx, some, &budget); err != nil {
			return err
		}
	}
	return nil
}

// deliver sends items in one request, until they are delivered or refused. If
// they are refused, each half is sent: many a destination of 1.0 refuses all
// because it has one of the samples already, as it may after a kill.
func (d *destination) deliver(ctx context.Context, items []item, budget *int) error {
	a, err := d.request(ctx, func(version1 bool) ([]byte, error) {
		return d.encoder.encode(d.table, items, version1)
	}, d.metrics.retriedBy(items))
	switch {
	case err != nil:
		return err
	case a.outcome == delivered:
		d.metrics.delivered(items)
		return nil
	case d.version1.Load() && len(items) > 1 && *budget > 0:
		*budget--
		half := len(items) / 2
		if err := d.deliver(ctx, items[:half], budget); err != nil {
			return err
		}
		return d.deliver(ctx, items[half:], budget)
	}
	d.logger.Warn("samples were refused", "samples", len(items), "written", a.written.AllSamples(), "err", a.err)
	d.metrics.refused(items, a.written)
	return nil
}

// encode makes a request of a version.
type encode func(version1 bool) ([]byte, error)

// request sends what encode makes until the answer is not that it should be
// sent again. A destination that is away is tried again by one of its requests
// at a time. The error is that of ctx.
func (d *destination) request(ctx context.Context, encode encode, retried func()) (answer, error) {
	a := d.try(ctx, encode, 0)
	if a.outcome != away {
		return a, nil
	}
	if ctx.Err() != nil {
		return a, ctx.Err()
	}
	backoff := time.Duration(d.write.QueueConfig.MinBackoff)
	next := time.Now().Add(max(backoff, a.retryAfter))
	d.noteAway(a)
	d.retrying.Lock()
	defer d.retrying.Unlock()
	for attempt := 1; ; attempt++ {
		if err := sleep(ctx, time.Until(next)); err != nil {
			return a, err
		}
		retried()
		if a = d.try(ctx, encode, attempt); a.outcome != away {
			return a, nil
		}
		backoff = min(2*backoff, time.Duration(d.write.QueueConfig.MaxBackoff))
		next = time.Now().Add(max(backoff, a.retryAfter))
		d.logger.Debug("destination still takes nothing", "attempt", attempt, "retry_after", a.retryAfter, "err", a.err)
	}
}

// try sends one request, and that again with 1.0 if 2.0 turns out to be
// unknown.
func (d *destination) try(ctx context.Context, encode encode, attempt int) answer {
	for {
		version1 := d.version1.Load()
		body, err := encode(version1)
		if err != nil {
			return answer{outcome: refused, err: err}
		}
		began := time.Now()
		a := d.client.send(ctx, body, !version1, attempt)
		d.metrics.duration.Observe(time.Since(began).Seconds())
		if a.outcome == delivered {
			d.metrics.bytes.Add(float64(len(body)))
		}
		if a.outcome != unknownVersion {
			return a
		}
		attempt = 0
		if d.version1.CompareAndSwap(false, true) {
			d.logger.Info("destination does not know remote write 2.0, going on with 1.0")
		}
	}
}

// noteAway logs that a destination went away, once for all requests that find
// out.
func (d *destination) noteAway(a answer) {
	if d.away.CompareAndSwap(false, true) {
		d.logger.Warn("destination takes nothing, samples wait in the write-ahead log", "retry_after", a.retryAfter, "err", a.err)
	}
}

// describe sends the metadata from time to time to a destination of 1.0; with
// 2.0 the samples have it.
func (d *destination) describe(ctx context.Context) error {
	c := d.write.MetadataConfig
	if !d.version1.Load() || !c.Send || time.Since(d.described) < time.Duration(c.SendInterval) {
		return nil
	}
	d.described = time.Now()
	all := d.table.metadata()
	for some := range slices.Chunk(all, max(1, c.MaxSamplesPerSend)) {
		_, err := d.request(ctx, func(bool) ([]byte, error) { return d.encoder.encodeMetadataV1(some) }, func() {})
		if err != nil {
			return err
		}
		d.metrics.metadata.Add(float64(len(some)))
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
