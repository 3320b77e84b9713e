package pushdown

import (
	"fmt"
	"iter"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/protobuf/proto"

	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// row is one sample of a result.
type row struct {
	metric labels.Labels
	t      int64
	f      float64
	h      *histogram.FloatHistogram
}

// value is a result as rows.
type value struct {
	kind pushdownv1.ValueType
	rows iter.Seq[row]
}

// valueOf returns a value of the engine as rows; strings have none.
func valueOf(v parser.Value) (value, error) {
	switch v := v.(type) {
	case promql.Scalar:
		return value{pushdownv1.ValueType_VALUE_TYPE_SCALAR, scalarRows(v)}, nil
	case promql.Vector:
		return value{pushdownv1.ValueType_VALUE_TYPE_VECTOR, vectorRows(v)}, nil
	case promql.Matrix:
		return value{pushdownv1.ValueType_VALUE_TYPE_MATRIX, matrixRows(v)}, nil
	default:
		return value{}, fmt.Errorf("expression is a %s: only numbers can be sent", v.Type())
	}
}

func scalarRows(v promql.Scalar) iter.Seq[row] {
	return func(yield func(row) bool) { yield(row{t: v.T, f: v.V}) }
}

func vectorRows(v promql.Vector) iter.Seq[row] {
	return func(yield func(row) bool) {
		for _, s := range v {
			if !yield(row{s.Metric, s.T, s.F, s.H}) {
				return
			}
		}
	}
}

func matrixRows(m promql.Matrix) iter.Seq[row] {
	return func(yield func(row) bool) {
		for _, s := range m {
			for _, p := range s.Floats {
				if !yield(row{s.Metric, p.T, p.F, nil}) {
					return
				}
			}
			for _, p := range s.Histograms {
				if !yield(row{s.Metric, p.T, 0, p.H}) {
					return
				}
			}
		}
	}
}

// What the parts of a message take on the wire, about.
const (
	resultBytes = 32
	rowBytes    = 18
	labelBytes  = 6
	fieldBytes  = 4
)

// encoder packs results into messages of about the wanted size. It is used by
// the goroutine of one stream.
type encoder struct {
	send   func(*pushdownv1.BatchResponse) error
	limit  int
	tables *tables
	msg    *pushdownv1.BatchResponse
	size   int
}

func newEncoder(send func(*pushdownv1.BatchResponse) error, limit int) *encoder {
	return &encoder{send: send, limit: limit, tables: newTables()}
}

// begin starts the answer to a batch.
func (e *encoder) begin(batch uint64) {
	e.msg = &pushdownv1.BatchResponse{BatchId: batch}
	e.size = 0
}

// finish sends what is left with the mark of the end.
func (e *encoder) finish() error {
	e.msg.Done = true
	return e.send(e.msg)
}

// add encodes the outcome of a job once for each of its fragments.
func (e *encoder) add(o *outcome) error {
	for _, fragment := range o.job.fragments {
		if err := e.addFragment(fragment, o); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) addFragment(fragment uint32, o *outcome) error {
	p := e.newPart(fragment, o)
	if o.err != nil {
		e.fail(p, o.err)
	} else {
		var err error
		if p, err = e.addRows(p, o); err != nil {
			return err
		}
	}
	p.result.Warnings = o.warnings
	p.result.SamplesRead = o.samples
	p.result.DurationUs = uint64(o.took.Microseconds())
	p.result.Complete = true
	for _, w := range o.warnings {
		e.size += len(w) + fieldBytes
	}
	return e.flushIfFull()
}

// addRows continues a part with all rows and returns the last part, which says
// so if the result is larger than the fragment's may be.
func (e *encoder) addRows(p *part, o *outcome) (last *part, err error) {
	bytes, limit := uint64(0), o.job.limits.bytes
	for r := range o.value.rows {
		if e.size >= e.limit {
			if err := e.flush(); err != nil {
				return p, err
			}
			p = e.newPart(p.result.GetFragment(), o)
		}
		before := e.size
		if err := e.addRow(p, r); err != nil {
			return p, err
		}
		if bytes += uint64(e.size - before); limit != 0 && bytes > limit {
			e.fail(p, exceeded(limitBytes, "the result of the fragment is larger than %d bytes", limit))
			return p, nil
		}
	}
	return p, nil
}

// fail makes a part the error of its fragment, without rows.
func (e *encoder) fail(p *part, err *pushdownv1.Error) {
	fragment, kind := p.result.GetFragment(), p.result.GetType()
	proto.Reset(p.result)
	p.result.Fragment, p.result.Type, p.result.Error = fragment, kind, err
	e.size += len(err.GetMessage())
}

// part is the piece of a result that goes into one message.
type part struct {
	result *pushdownv1.FragmentResult
	start  int64
}

func (e *encoder) newPart(fragment uint32, o *outcome) *part {
	p := &part{
		result: &pushdownv1.FragmentResult{Fragment: fragment, Type: o.value.kind},
		start:  o.job.start,
	}
	e.msg.Results = append(e.msg.Results, p.result)
	e.size += resultBytes
	return p
}

func (e *encoder) addRow(p *part, r row) error {
	n := len(p.result.LabelSets)
	p.result.LabelSets = append(p.result.LabelSets, e.labelSet(r.metric))
	p.addTimestamp(n, r.t)
	e.size += rowBytes
	if r.h == nil {
		p.result.Values = append(p.result.Values, r.f)
		return nil
	}
	histogram := prompb.FromFloatHistogram(r.t, r.h)
	// The conversion leaves out the bounds of custom buckets.
	histogram.CustomValues = r.h.CustomValues
	encoded, err := histogram.Marshal()
	if err != nil {
		return fmt.Errorf("encode native histogram of %s: %w", r.metric, err)
	}
	p.result.HistogramRows = append(p.result.HistogramRows, uint32(n))
	p.result.Histograms = append(p.result.Histograms, encoded)
	e.size += len(encoded) + fieldBytes
	return nil
}

// addTimestamp leaves the column empty for as long as all of the n samples
// before are at the fragment's start.
func (p *part) addTimestamp(n int, t int64) {
	if len(p.result.TimestampsMs) == 0 {
		if t == p.start {
			return
		}
		for range n {
			p.result.TimestampsMs = append(p.result.TimestampsMs, p.start)
		}
	}
	p.result.TimestampsMs = append(p.result.TimestampsMs, t)
}

func (e *encoder) labelSet(ls labels.Labels) uint32 {
	number, isNew := e.tables.labelSet(ls)
	if !isNew {
		return number
	}
	set := &pushdownv1.LabelSet{Symbols: make([]uint32, 0, 2*ls.Len())}
	ls.Range(func(l labels.Label) {
		set.Symbols = append(set.Symbols, e.symbol(l.Name), e.symbol(l.Value))
	})
	e.msg.NewLabelSets = append(e.msg.NewLabelSets, set)
	e.size += fieldBytes + len(set.Symbols)/2*labelBytes
	return number
}

func (e *encoder) symbol(s string) uint32 {
	number, isNew := e.tables.symbol(s)
	if isNew {
		e.msg.NewSymbols = append(e.msg.NewSymbols, s)
		e.size += fieldBytes + len(s)
	}
	return number
}

func (e *encoder) flushIfFull() error {
	if e.size < e.limit {
		return nil
	}
	return e.flush()
}

func (e *encoder) flush() error {
	msg := e.msg
	e.begin(msg.GetBatchId())
	return e.send(msg)
}

// tables number the strings and label sets of a stream from 0.
type tables struct {
	symbols map[string]uint32
	sets    map[string]uint32
	buf     []byte
}

func newTables() *tables {
	return &tables{symbols: map[string]uint32{}, sets: map[string]uint32{}}
}

// labelSets is the number of label sets in the table.
func (t *tables) labelSets() int { return len(t.sets) }

func (t *tables) labelSet(ls labels.Labels) (number uint32, isNew bool) {
	t.buf = ls.Bytes(t.buf)
	if number, ok := t.sets[string(t.buf)]; ok {
		return number, false
	}
	number = uint32(len(t.sets))
	t.sets[string(t.buf)] = number
	return number, true
}

func (t *tables) symbol(s string) (number uint32, isNew bool) {
	if number, ok := t.symbols[s]; ok {
		return number, false
	}
	number = uint32(len(t.symbols))
	// The string may be part of the engine's memory.
	t.symbols[strings.Clone(s)] = number
	return number, true
}
