package remote

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// assembly puts the answer to a batch together from its messages.
type assembly struct {
	stream    *stream
	fragments []plan.Fragment
	parts     []part
	budget
}

// part is the answer to one fragment so far.
type part struct {
	seen     bool
	complete bool
	kind     pushdownv1.ValueType
	samples  promql.Vector
	series   []promql.Series
	bySet    map[uint32]int
	result   Result
	scalar   float64
	nSamples int
}

// budget is what an answer may still hold.
type budget struct{ limit, bytes int64 }

func (b *budget) spend(msg proto.Message) error {
	if b.bytes += int64(proto.Size(msg)); b.bytes > b.limit {
		return errorf(KindLimit, "the answer is larger than max_response_bytes (%d): aggregate more or raise the limit", b.limit)
	}
	return nil
}

func newAssembly(s *stream, fragments []plan.Fragment) *assembly {
	return &assembly{stream: s, fragments: fragments, parts: make([]part, len(fragments)), budget: budget{limit: s.limit}}
}

// add takes in one message.
func (a *assembly) add(batch uint64, msg *pushdownv1.BatchResponse) error {
	if msg.GetBatchId() != batch {
		return errorf(KindBackend, "an answer to batch %d instead of %d", msg.GetBatchId(), batch)
	}
	if err := a.spend(msg); err != nil {
		return err
	}
	if err := a.stream.learn(msg); err != nil {
		return err
	}
	for _, r := range msg.GetResults() {
		if int(r.GetFragment()) >= len(a.parts) {
			return errorf(KindBackend, "a result for fragment %d of %d", r.GetFragment(), len(a.parts))
		}
		if err := a.parts[r.GetFragment()].add(r, a.stream.sets, a.fragments[r.GetFragment()].Window); err != nil {
			return &Error{Kind: KindBackend, Err: fmt.Errorf("the answer is malformed: %w", err)}
		}
	}
	return nil
}

// finish returns the results. A fragment that was forgotten is an error.
func (a *assembly) finish() []Result {
	results := make([]Result, len(a.parts))
	for i := range a.parts {
		results[i] = limited(a.parts[i].finish(a.fragments[i].Window), a.fragments[i].Limits)
	}
	return results
}

// unless returns the results of a batch that ended early: those that were
// complete when time or room ran out, and the error for all others. Nothing is
// believed of a backend that is at fault itself.
func (a *assembly) unless(err *Error) []Result {
	results := failAll(len(a.parts), err)
	if err.Kind == KindBackend {
		return results
	}
	for i, r := range a.finish() {
		if a.parts[i].complete {
			results[i] = r
		}
	}
	return results
}

func (p *part) add(r *pushdownv1.FragmentResult, sets []labels.Labels, w plan.Window) error {
	if p.seen && p.kind != r.GetType() && r.GetError() == nil {
		return fmt.Errorf("a result changes its type from %s to %s", p.kind, r.GetType())
	}
	p.seen, p.kind = true, r.GetType()
	p.result.Bytes += proto.Size(r)
	p.result.SamplesRead += r.GetSamplesRead()
	p.result.Took += time.Duration(r.GetDurationUs()) * time.Microsecond
	p.complete = p.complete || r.GetComplete()
	addAnnotations(&p.result.Warnings, r.GetWarnings())
	if e := r.GetError(); e != nil {
		p.result.Err = &Error{Kind: wireKind(e.GetKind()), Limit: wireLimit(e.GetLimit()), Err: errors.New(e.GetMessage())}
		return nil
	}
	rows, err := newRows(r, sets, w)
	if err != nil {
		return err
	}
	for i := range r.GetLabelSets() {
		if err := p.row(rows, i); err != nil {
			return err
		}
	}
	return nil
}

// row takes in the i-th sample.
func (p *part) row(rows *rows, i int) error {
	set, t, f, h, err := rows.at(i)
	if err != nil {
		return err
	}
	p.nSamples++
	if p.kind != pushdownv1.ValueType_VALUE_TYPE_MATRIX && t != rows.start {
		return fmt.Errorf("a sample at %d ms, asked for %d ms", t, rows.start)
	}
	switch p.kind {
	case pushdownv1.ValueType_VALUE_TYPE_SCALAR:
		p.scalar = f
	case pushdownv1.ValueType_VALUE_TYPE_VECTOR:
		p.samples = append(p.samples, promql.Sample{Metric: rows.sets[set], T: t, F: f, H: h})
	case pushdownv1.ValueType_VALUE_TYPE_MATRIX:
		p.point(set, rows.sets[set], promql.Sample{T: t, F: f, H: h})
	}
	return nil
}

func (p *part) point(set uint32, metric labels.Labels, s promql.Sample) {
	i, known := p.bySet[set]
	if !known {
		if p.bySet == nil {
			p.bySet = map[uint32]int{}
		}
		i = len(p.series)
		p.bySet[set] = i
		p.series = append(p.series, promql.Series{Metric: metric})
	}
	if s.H != nil {
		p.series[i].Histograms = append(p.series[i].Histograms, promql.HPoint{T: s.T, H: s.H})
		return
	}
	p.series[i].Floats = append(p.series[i].Floats, promql.FPoint{T: s.T, F: s.F})
}

func (p *part) finish(w plan.Window) Result {
	if p.result.Err != nil {
		return p.result
	}
	value, err := p.value(w)
	if err != nil {
		return Result{Err: errorf(KindBackend, "the answer is malformed: %w", err)}
	}
	p.result.Value = value
	return p.result
}

func (p *part) value(w plan.Window) (parser.Value, error) {
	switch {
	case !p.seen:
		return nil, errors.New("a fragment has no result")
	case p.kind == pushdownv1.ValueType_VALUE_TYPE_MATRIX:
		for _, s := range p.series {
			if err := checkSeries(s, w); err != nil {
				return nil, err
			}
		}
		return promql.Matrix(p.series), nil
	case w.Step != 0:
		return nil, fmt.Errorf("result type %s of a range query", p.kind)
	case p.kind == pushdownv1.ValueType_VALUE_TYPE_VECTOR:
		return p.samples, nil
	case p.kind == pushdownv1.ValueType_VALUE_TYPE_SCALAR && p.nSamples == 1:
		return promql.Scalar{T: w.Start, V: p.scalar}, nil
	}
	return nil, fmt.Errorf("%d samples of result type %s", p.nSamples, p.kind)
}

// rows reads the columns of a result.
type rows struct {
	result     *pushdownv1.FragmentResult
	sets       []labels.Labels
	start      int64
	floats     int
	histograms int
}

func newRows(r *pushdownv1.FragmentResult, sets []labels.Labels, w plan.Window) (*rows, error) {
	n, times := len(r.GetLabelSets()), len(r.GetTimestampsMs())
	switch {
	case len(r.GetHistograms()) != len(r.GetHistogramRows()):
		return nil, fmt.Errorf("%d histograms for %d rows", len(r.GetHistograms()), len(r.GetHistogramRows()))
	case len(r.GetValues())+len(r.GetHistograms()) != n:
		return nil, fmt.Errorf("%d values and %d histograms for %d label sets", len(r.GetValues()), len(r.GetHistograms()), n)
	case times != 0 && times != n:
		return nil, fmt.Errorf("%d times for %d label sets", times, n)
	}
	return &rows{result: r, sets: sets, start: w.Start}, nil
}

// at returns the i-th row; rows are read in order, each once.
func (r *rows) at(i int) (set uint32, t int64, f float64, h *histogram.FloatHistogram, err error) {
	set, t = r.result.GetLabelSets()[i], r.start
	if int(set) >= len(r.sets) {
		return 0, 0, 0, nil, fmt.Errorf("a sample refers to label set %d beyond the %d known ones", set, len(r.sets))
	}
	if times := r.result.GetTimestampsMs(); len(times) > 0 {
		t = times[i]
	}
	if next := r.result.GetHistogramRows(); r.histograms < len(next) && int(next[r.histograms]) == i {
		p, err := decodeHistogram(r.result.GetHistograms()[r.histograms])
		r.histograms++
		return set, t, 0, p.H, err
	}
	if r.floats >= len(r.result.GetValues()) {
		return 0, 0, 0, nil, fmt.Errorf("sample %d has no value", i)
	}
	f = r.result.GetValues()[r.floats]
	r.floats++
	return set, t, f, nil, nil
}

func decodeHistogram(b []byte) (promql.HPoint, error) {
	var h prompb.Histogram
	if err := h.Unmarshal(b); err != nil {
		return promql.HPoint{}, fmt.Errorf("decode a native histogram: %w", err)
	}
	fh := h.ToFloatHistogram()
	if err := validLayout(*fh); err != nil {
		return promql.HPoint{}, fmt.Errorf("a native histogram is invalid: %w", err)
	}
	return promql.HPoint{T: h.GetTimestamp(), H: fh}, nil
}

// validLayout checks what later arithmetic relies on. The counts may well be
// negative, as those of a difference of two histograms.
func validLayout(h histogram.FloatHistogram) error {
	absolute := func(list []float64) []float64 {
		list = slices.Clone(list)
		for i, v := range list {
			list[i] = math.Abs(v)
		}
		return list
	}
	h.Count, h.ZeroCount = math.Abs(h.Count), math.Abs(h.ZeroCount)
	if h.UsesCustomBuckets() && math.IsNaN(h.ZeroCount) {
		h.ZeroCount = 0 // It is what division by 0 makes of no zero bucket.
	}
	h.PositiveBuckets, h.NegativeBuckets = absolute(h.PositiveBuckets), absolute(h.NegativeBuckets)
	return h.Validate()
}

// wireLimit is the limit of that name, or none: the name becomes a label of
// metrics.
func wireLimit(name string) Limit {
	if l := Limit(name); slices.Contains(Limits(), l) {
		return l
	}
	return ""
}

func wireKind(k pushdownv1.Error_Kind) Kind {
	switch k {
	case pushdownv1.Error_KIND_USER:
		return KindUser
	case pushdownv1.Error_KIND_LIMIT:
		return KindLimit
	case pushdownv1.Error_KIND_TIMEOUT:
		return KindTimeout
	case pushdownv1.Error_KIND_CANCELED:
		return KindBackend
	}
	return KindInternal
}
