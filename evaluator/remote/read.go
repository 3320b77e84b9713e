package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	promremote "github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

const readPath = "/api/v1/read"

// frameBytes bounds one frame of a streamed answer to remote read.
const frameBytes = 50 << 20

// SeriesSource serves stored series of one backend as they are stored.
type SeriesSource interface {
	// Series returns all series that match, complete between the bounds of
	// hints. It may fail with more of them than hints permit, but not leave
	// any out. The error is an *Error.
	Series(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher) ([]storage.Series, error)
}

// ChunkedRead fetches series over Prometheus' remote read, streamed in chunks.
type ChunkedRead struct {
	cfg  HTTPConfig
	data storage.SampleAndChunkQueryable
}

var _ SeriesSource = (*ChunkedRead)(nil)

// NewChunkedRead returns a client. A call takes timeout at most.
func NewChunkedRead(cfg HTTPConfig, timeout time.Duration) (*ChunkedRead, error) {
	client, err := promremote.NewReadClient(cfg.Name, &promremote.ClientConfig{
		URL:              &config.URL{URL: cfg.URL.JoinPath(readPath)},
		Timeout:          model.Duration(timeout),
		HTTPClientConfig: cfg.Client,
		ChunkedReadLimit: frameBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("make remote read client of backend %q: %w", cfg.Name, err)
	}
	if c, ok := client.(*promremote.Client); ok {
		c.Client.Transport = repeatable{c.Client.Transport}
	}
	return &ChunkedRead{
		cfg:  cfg,
		data: promremote.NewSampleAndChunkQueryableClient(client, labels.EmptyLabels(), nil, true, nil),
	}, nil
}

// Series implements SeriesSource.
func (r *ChunkedRead) Series(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher) ([]storage.Series, error) {
	q, err := r.data.Querier(hints.Start, hints.End)
	if err != nil {
		return nil, r.fault(ctx, err)
	}
	defer q.Close()
	most := hints.Limit
	hints.Limit = 0
	set := q.Select(ctx, true, &hints, matchers...)
	var list []storage.Series
	for set.Next() {
		if most != 0 && len(list) == most {
			return nil, tooManySeries(most)
		}
		list = append(list, set.At())
	}
	if err := set.Err(); err != nil {
		return nil, r.fault(ctx, err)
	}
	return list, nil
}

func tooManySeries(most int) *Error {
	return exceeded(LimitSeries, "a selector fetches more raw series than the limit, which is %d", most)
}

// fault gives an error its kind. The library's text shows the URL, whose
// parameters may be secret.
func (r *ChunkedRead) fault(ctx context.Context, err error) error {
	text := strings.ReplaceAll(err.Error(), r.cfg.URL.JoinPath(readPath).String(), "")
	e := transportError(ctx, fmt.Errorf("remote read: %s", text))
	if e.Kind == KindBackend && isLimit(err.Error()) {
		e.Kind = KindLimit
	}
	return e
}

// Source serves the series of one backend and what is known about their
// labels.
type Source interface {
	SeriesSource
	LabelSource
}

// Reader is a source whose series have their partition labels, be they stored
// or not.
type Reader struct {
	backend plan.Backend
	source  Source
	// partition is what a virtual backend's series get.
	partition labels.Labels
}

// NewReader returns a reader of what a backend's source stores.
func NewReader(b plan.Backend, source Source) *Reader {
	r := &Reader{backend: b, source: source}
	if b.Virtual {
		r.partition = b.Partition.WithoutEmpty()
	}
	return r
}

// fetch returns all series that match, complete, with their partition labels.
func (r *Reader) fetch(ctx context.Context, hints storage.SelectHints, matchers []*labels.Matcher) ([]storage.Series, error) {
	list, err := r.source.Series(ctx, hints, r.stored(matchers))
	if err == nil && hints.Limit != 0 && len(list) > hints.Limit {
		err = tooManySeries(hints.Limit)
	}
	for i, s := range list {
		list[i] = r.relabelled(s)
	}
	return list, r.named(err)
}

// stored takes off the matchers that stored series cannot satisfy. The caller
// asks only if the partition satisfies them. No matcher at all would select
// nothing.
func (r *Reader) stored(matchers []*labels.Matcher) []*labels.Matcher {
	rest := slices.DeleteFunc(slices.Clone(matchers), func(m *labels.Matcher) bool { return r.partition.Has(m.Name) })
	if slices.ContainsFunc(rest, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		return rest
	}
	return append(rest, labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, ""))
}

// named says which backend an error is about.
func (r *Reader) named(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Backend == "" {
		return &Error{Kind: e.Kind, Backend: r.backend.Name, Limit: e.Limit, Err: e.Err}
	}
	return err
}

type labelled struct {
	storage.Series
	labels labels.Labels
}

// Labels implements storage.Series.
func (s labelled) Labels() labels.Labels { return s.labels }

func (r *Reader) relabelled(s storage.Series) storage.Series {
	ls := s.Labels()
	if !r.partition.IsEmpty() {
		b := labels.NewBuilder(ls)
		r.partition.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		ls = b.Labels()
	}
	return labelled{s, ls}
}

// Raw is the union of the series of several backends as a storage. A selector
// is sent to the backends whose partition it can match; if one of them fails,
// the selector does.
type Raw struct {
	readers []*Reader
	partial bool
}

// NewRaw returns the union of what readers read.
func NewRaw(readers []*Reader) *Raw { return &Raw{readers: readers} }

// Content returns the union as it is, or one that is content with a part of
// the data: backends that are away are warned of, if others are there.
func (r *Raw) Content(withPart bool) *Raw { return &Raw{readers: r.readers, partial: withPart} }

// Querier implements storage.Queryable.
func (r *Raw) Querier(mint, maxt int64) (storage.Querier, error) {
	return &rawQuerier{raw: r, mint: mint, maxt: maxt}, nil
}

// ChunkQuerier implements storage.ChunkQueryable.
func (r *Raw) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return &rawChunkQuerier{rawQuerier{raw: r, mint: mint, maxt: maxt}}, nil
}

type rawQuerier struct {
	raw        *Raw
	mint, maxt int64
}

// Select implements storage.Querier. The result is always sorted.
func (q *rawQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	h := storage.SelectHints{Start: q.mint, End: q.maxt}
	if hints != nil {
		h = *hints
		h.Start, h.End = max(h.Start, q.mint), min(h.End, q.maxt)
	}
	f := fetching{raw: q.raw, lists: make([][]storage.Series, len(q.raw.readers))}
	group, ctx := errgroup.WithContext(ctx)
	for i, r := range q.raw.readers {
		if r.backend.Holds(matchers) {
			group.Go(func() (err error) {
				f.lists[i], err = r.fetch(ctx, h, matchers)
				return f.ended(r, err)
			})
		}
	}
	if err := cmp.Or(group.Wait(), f.nothing()); err != nil {
		return storage.ErrSeriesSet(err)
	}
	return newListSet(slices.Concat(f.lists...), f.warnings)
}

// fetching is one selector on its way to several backends.
type fetching struct {
	raw   *Raw
	lists [][]storage.Series

	mu       sync.Mutex
	answered int
	err      error // of a backend that was left out
	warnings annotations.Annotations
}

// ended is told the outcome of one backend and returns what the whole selector
// fails with.
func (f *fetching) ended(r *Reader, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.answered++
	case f.raw.partial && Absent(err):
		f.err = err
		f.warnings.Add(&Missing{Backend: r.backend.Name, Err: err})
	default:
		return err
	}
	return nil
}

// nothing is an error if no backend is there of which there could be a part.
func (f *fetching) nothing() error {
	if f.answered == 0 {
		return f.err
	}
	return nil
}

// Close implements storage.Querier.
func (q *rawQuerier) Close() error { return nil }

type rawChunkQuerier struct {
	rawQuerier
}

// Select implements storage.ChunkQuerier.
func (q *rawChunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.rawQuerier.Select(ctx, sorted, hints, matchers...))
}

// listSet is a sorted list of series.
type listSet struct {
	list     []storage.Series
	next     int
	warnings annotations.Annotations
}

// newListSet sorts series and joins those with equal labels: remote read cuts
// a long series in pieces.
func newListSet(list []storage.Series, ws annotations.Annotations) *listSet {
	slices.SortStableFunc(list, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	joined := list[:0]
	for i := 0; i < len(list); {
		n := 1
		for i+n < len(list) && labels.Equal(list[i].Labels(), list[i+n].Labels()) {
			n++
		}
		one := list[i]
		if n > 1 {
			one = storage.ChainedSeriesMerge(slices.Clone(list[i : i+n])...)
		}
		joined = append(joined, one)
		i += n
	}
	return &listSet{list: joined, warnings: ws}
}

// Next implements storage.SeriesSet.
func (s *listSet) Next() bool {
	s.next++
	return s.next <= len(s.list)
}

// At implements storage.SeriesSet.
func (s *listSet) At() storage.Series { return s.list[s.next-1] }

// Err implements storage.SeriesSet.
func (s *listSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *listSet) Warnings() annotations.Annotations { return s.warnings }
