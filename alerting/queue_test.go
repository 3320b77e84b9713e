package alerting

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// gathered is the text of the counters and gauges of a Sender.
func gathered(t *testing.T, s *Sender) string {
	t.Helper()
	families, err := s.reg.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	var b strings.Builder
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "prometheus_notifications_") && !strings.Contains(f.GetName(), "latency") {
			_, err := expfmt.MetricFamilyToText(&b, f)
			require.NoError(t, err)
		}
	}
	var samples strings.Builder
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "#") {
			samples.WriteString(line)
		}
	}
	return samples.String()
}

// naiveQueue is the queue as one would explain it.
type naiveQueue struct {
	capacity int
	items    []*item
}

func (q *naiveQueue) put(i *item) (dropped int) {
	for at, other := range q.items {
		if other.key() == i.key() {
			q.items[at] = i
			return 0
		}
	}
	q.items = append(q.items, i)
	if len(q.items) > q.capacity {
		q.items = q.items[1:]
		return 1
	}
	return 0
}

func (q *naiveQueue) head(n, maxBytes int, now time.Time) (batch []*item, expired int) {
	kept := []*item{}
	full := false
	for _, i := range q.items {
		full = full || len(batch) == n
		if !full && i.Expiry().Before(now) {
			expired++
			continue
		}
		kept = append(kept, i)
		maxBytes -= i.bytes()
		full = full || maxBytes < 0 && len(batch) > 0
		if !full {
			batch = append(batch, i)
		}
	}
	q.items = kept
	return batch, expired
}

func (q *naiveQueue) done(batch []*item) {
	q.items = slices.DeleteFunc(q.items, func(i *item) bool { return slices.Contains(batch, i) })
}

func TestQueueIsAsTheNaiveOne(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		q, naive := newQueue(5), &naiveQueue{capacity: 5}
		now := time.Unix(0, 0)
		var batch []*item
		for range 200 {
			now = now.Add(time.Second)
			switch rnd.IntN(4) {
			case 0:
				q.done(batch)
				naive.done(batch)
			case 1:
				got, expired := q.head(3, 50, now)
				want, wantExpired := naive.head(3, 50, now)
				require.Equal(t, want, got, "seed %d", seed)
				require.Equal(t, wantExpired, expired, "seed %d", seed)
				batch = got
			default:
				i := &item{Notification: alert.Notification{
					Labels:      labels.FromStrings("id", fmt.Sprint(rnd.IntN(9))),
					Annotations: labels.FromStrings("a", strings.Repeat("x", rnd.IntN(60))),
					EndsAt:      now.Add(time.Duration(rnd.IntN(30)) * time.Second),
				}}
				require.Equal(t, naive.put(i), q.put([]*item{i}), "seed %d", seed)
			}
			require.Equal(t, len(naive.items), q.len(), "seed %d", seed)
		}
		require.Equal(t, naive.items, q.take(), "seed %d", seed)
		require.Zero(t, q.len())
	}
}

func TestEqualAlertsOfTwoRulesAreTwo(t *testing.T) {
	t.Parallel()
	q := newQueue(5)
	n := alert.Notification{Labels: labels.FromStrings("alertname", "X")}
	q.put([]*item{{n, "http://one"}, {n, "http://two"}})
	require.Equal(t, 2, q.len())
}
