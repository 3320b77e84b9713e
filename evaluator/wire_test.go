package evaluator_test

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/internal/promserver"
)

// counted is no fault, but counts the bytes of answers.
func counted(n *atomic.Int64) fault {
	return func(client, server *net.TCPConn) {
		go func() { _, _ = io.Copy(server, client) }()
		_, _ = io.Copy(io.MultiWriter(client, tally{n}), server)
	}
}

type tally struct{ n *atomic.Int64 }

func (c tally) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// TestSteadyBatchesCarryValuesOnly measures what the pushdown protocol sends:
// labels once, and less of them with compression.
func TestSteadyBatchesCarryValuesOnly(t *testing.T) {
	t.Parallel()
	db := promserver.Storage(t)
	var series []promql.Series
	for i := range 1000 {
		ls := labels.FromStrings("cluster", "west", "instance", fmt.Sprintf("a-rather-long-name-%d", i), "job", "a-job-with-a-name")
		series = append(series, named(ls, "gauge", []promql.FPoint{{T: slot.UnixMilli(), F: float64(i) / 3}}))
	}
	promserver.Append(t, db, series)
	address, api := startPushdown(t, db), promserver.Start(t, db, labels.EmptyLabels())
	exchange := func(compress bool) (first, second int64) {
		var n atomic.Int64
		p := newProxy(t, address)
		p.set(counted(&n))
		b := backendConfig(t, "west", "west", api)
		b.GRPC = &evaluator.GRPCConfig{Address: p.address, Compress: compress}
		e := newFaultEvaluator(t, b)
		batch := func() int64 {
			before := n.Load()
			for _, r := range evaluate(t, e, `gauge`, `sum(gauge)`, `max by (instance) (gauge)`) {
				require.NoError(t, r.Err)
			}
			return n.Load() - before
		}
		return batch(), batch()
	}
	first, second := exchange(false)
	require.Less(t, second, first/2)
	require.Less(t, second, int64(2*1000*16), "a value and the number of its label set each")
	compressed, _ := exchange(true)
	require.Less(t, compressed, first/3)
}
