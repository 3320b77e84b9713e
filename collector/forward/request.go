package forward

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

// item is a sample or, if that is set, an exemplar.
type item struct {
	wal.Sample
	exemplar *exemplar.Exemplar
}

// encoder makes requests, one at a time also for several goroutines. It keeps
// its buffers, so that a request after the first takes little memory.
type encoder struct {
	mu      sync.Mutex
	v2      writev2.Request
	v1      prompb.WriteRequest
	refs    []uint32
	samples []writev2.Sample
	labels  []prompb.Label
	floats  []prompb.Sample
	// refOf is by symbol of the table its number in the request, used are
	// those that have one.
	refOf      []uint32
	used       []uint32
	plain      []byte
	compressed []byte
}

// encode makes a request of a version.
func (e *encoder) encode(t *table, items []item, version1 bool) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if version1 {
		return e.encodeV1(t, items)
	}
	return e.encodeV2(t, items)
}

func (e *encoder) encodeV2(t *table, items []item) ([]byte, error) {
	e.beginV2(len(t.symbols))
	for i := range items {
		e.v2.Timeseries = append(e.v2.Timeseries, e.seriesV2(t, &items[i]))
	}
	plain, err := e.v2.OptimizedMarshal(e.plain[:0])
	if err != nil {
		return nil, fmt.Errorf("encode remote-write request: %w", err)
	}
	e.plain = plain
	return e.compress(), nil
}

func (e *encoder) beginV2(symbols int) {
	for _, symbol := range e.used {
		e.refOf[symbol] = 0
	}
	if grow := symbols - len(e.refOf); grow > 0 {
		e.refOf = append(e.refOf, make([]uint32, grow)...)
	}
	e.used, e.refs, e.samples = e.used[:0], e.refs[:0], e.samples[:0]
	e.v2.Symbols, e.v2.Timeseries = append(e.v2.Symbols[:0], ""), e.v2.Timeseries[:0]
}

// ref is the number that the request has for a symbol of the table.
func (e *encoder) ref(t *table, symbol uint32) uint32 {
	if symbol == 0 {
		return 0
	}
	if e.refOf[symbol] == 0 {
		e.refOf[symbol] = uint32(len(e.v2.Symbols))
		e.used = append(e.used, symbol)
		e.v2.Symbols = append(e.v2.Symbols, t.symbols[symbol])
	}
	return e.refOf[symbol]
}

func (e *encoder) seriesV2(t *table, it *item) (ts writev2.TimeSeries) {
	s := t.entry(it.Number)
	first := len(e.refs)
	for range 2 * s.n {
		e.refs = append(e.refs, e.ref(t, s.next()))
	}
	ts.LabelsRefs = e.refs[first:len(e.refs):len(e.refs)]
	ts.Metadata = writev2.Metadata{Type: s.kind, HelpRef: e.ref(t, s.help), UnitRef: e.ref(t, s.unit)}
	switch {
	case it.exemplar != nil:
		ts.Exemplars = []writev2.Exemplar{{Value: it.exemplar.Value, Timestamp: it.exemplar.Ts, LabelsRefs: e.newSymbols(it.exemplar.Labels)}}
	case it.H != nil:
		ts.Histograms = []writev2.Histogram{writev2.FromIntHistogram(it.T, it.H)}
	case it.FH != nil:
		ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(it.T, it.FH)}
	default:
		e.samples = append(e.samples, writev2.Sample{Value: it.V, Timestamp: it.T})
		ts.Samples = e.samples[len(e.samples)-1:]
	}
	return ts
}

// newSymbols are for the labels of exemplars, which are hardly ever seen twice
// and so in no table.
func (e *encoder) newSymbols(lset labels.Labels) (refs []uint32) {
	lset.Range(func(l labels.Label) {
		for _, s := range []string{l.Name, l.Value} {
			refs = append(refs, uint32(len(e.v2.Symbols)))
			e.v2.Symbols = append(e.v2.Symbols, s)
		}
	})
	return refs
}

func (e *encoder) encodeV1(t *table, items []item) ([]byte, error) {
	e.labels, e.floats, e.v1.Timeseries = e.labels[:0], e.floats[:0], e.v1.Timeseries[:0]
	for i := range items {
		e.v1.Timeseries = append(e.v1.Timeseries, e.seriesV1(t, &items[i]))
	}
	return e.marshalV1(&e.v1)
}

// encodeMetadataV1 makes a request of metadata alone: 1.0 has none at samples.
func (e *encoder) encodeMetadataV1(m []prompb.MetricMetadata) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.marshalV1(&prompb.WriteRequest{Metadata: m})
}

func (e *encoder) marshalV1(req *prompb.WriteRequest) ([]byte, error) {
	if size := req.Size(); cap(e.plain) < size {
		e.plain = make([]byte, size+size/4)
	}
	e.plain = e.plain[:req.Size()]
	if _, err := req.MarshalToSizedBuffer(e.plain); err != nil {
		return nil, fmt.Errorf("encode remote-write request: %w", err)
	}
	return e.compress(), nil
}

func (e *encoder) seriesV1(t *table, it *item) (ts prompb.TimeSeries) {
	s := t.entry(it.Number)
	first := len(e.labels)
	for range s.n {
		e.labels = append(e.labels, prompb.Label{Name: t.symbols[s.next()], Value: t.symbols[s.next()]})
	}
	ts.Labels = e.labels[first:len(e.labels):len(e.labels)]
	switch {
	case it.exemplar != nil:
		ts.Exemplars = []prompb.Exemplar{{Value: it.exemplar.Value, Timestamp: it.exemplar.Ts, Labels: prompb.FromLabels(it.exemplar.Labels, nil)}}
	case it.H != nil:
		ts.Histograms = []prompb.Histogram{prompb.FromIntHistogram(it.T, it.H)}
	case it.FH != nil:
		h := prompb.FromFloatHistogram(it.T, it.FH)
		h.CustomValues = it.FH.CustomValues // which that function forgets
		ts.Histograms = []prompb.Histogram{h}
	default:
		e.floats = append(e.floats, prompb.Sample{Value: it.V, Timestamp: it.T})
		ts.Samples = e.floats[len(e.floats)-1:]
	}
	return ts
}

// compress returns the request, which is all that stays while it is under way.
func (e *encoder) compress() []byte {
	if most := snappy.MaxEncodedLen(len(e.plain)); cap(e.compressed) < most {
		e.compressed = make([]byte, most+most/4)
	}
	return bytes.Clone(snappy.Encode(e.compressed[:cap(e.compressed)], e.plain))
}
