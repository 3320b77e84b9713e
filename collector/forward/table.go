package forward

import (
	"encoding/binary"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/relabel"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

// table knows the series of one segment as the destination is to get them. A
// series is a few small numbers of symbols, which are the strings in all
// labels and metadata, each held once.
type table struct {
	segment  int
	external labels.Labels
	relabel  []*relabel.Config
	builder  *labels.Builder

	symbols []string
	ids     map[string]uint32
	// packed has, as varints, of each series: the metric type, the symbols of
	// help and unit, the number of labels, the symbols of their names and
	// values.
	packed []byte
	// offsets are the places in packed by the number of the series, plus one;
	// zero is a series that relabelling drops.
	offsets []uint32
}

func newTable(external labels.Labels, rules []*relabel.Config) *table {
	return &table{external: external, relabel: rules, ids: map[string]uint32{}}
}

// reset begins another segment.
func (t *table) reset(segment int) {
	t.segment = segment
	// Its strings, if labels are built to share them, are forgotten as well.
	t.builder = labels.NewBuilder(labels.EmptyLabels())
	clear(t.symbols)
	clear(t.ids)
	t.symbols, t.packed, t.offsets = t.symbols[:0], t.packed[:0], t.offsets[:0]
	t.symbol("") // Has to be zero.
}

func (t *table) define(series []wal.Series) {
	for _, s := range series {
		lset, kept := t.labels(s.Labels)
		if !kept {
			t.offsets = append(t.offsets, 0)
			continue
		}
		t.offsets = append(t.offsets, uint32(len(t.packed))+1)
		t.put(lset, s.Metadata)
	}
}

// labels adds external labels where the series has none of the name, and
// relabels.
func (t *table) labels(lset labels.Labels) (labels.Labels, bool) {
	t.builder.Reset(lset)
	t.external.Range(func(l labels.Label) {
		if t.builder.Get(l.Name) == "" {
			t.builder.Set(l.Name, l.Value)
		}
	})
	if !relabel.ProcessBuilder(t.builder, t.relabel...) {
		return labels.EmptyLabels(), false
	}
	lset = t.builder.Labels()
	return lset, !lset.IsEmpty()
}

func (t *table) put(lset labels.Labels, m metadata.Metadata) {
	add := func(n uint32) { t.packed = binary.AppendUvarint(t.packed, uint64(n)) }
	add(uint32(writev2.FromMetadataType(m.Type)))
	add(t.symbol(m.Help))
	add(t.symbol(m.Unit))
	add(uint32(lset.Len()))
	lset.Range(func(l labels.Label) {
		add(t.symbol(l.Name))
		add(t.symbol(l.Value))
	})
}

// symbol copies a new string, which is a part of a longer one.
func (t *table) symbol(s string) uint32 {
	id, known := t.ids[s]
	if !known {
		s = strings.Clone(s)
		id = uint32(len(t.symbols))
		t.symbols = append(t.symbols, s)
		t.ids[s] = id
	}
	return id
}

// kept tells whether the destination is to get a series.
func (t *table) kept(number uint32) bool {
	return int(number) < len(t.offsets) && t.offsets[number] != 0
}

// entry is a series that is kept.
type entry struct {
	kind       writev2.Metadata_MetricType
	help, unit uint32
	labels     []byte
	n          int
}

func (t *table) entry(number uint32) (e entry) {
	e.labels = t.packed[t.offsets[number]-1:]
	e.kind = writev2.Metadata_MetricType(e.next())
	e.help, e.unit = e.next(), e.next()
	e.n = int(e.next())
	return e
}

// next is the next number, once for the name and once for the value of each
// label.
func (e *entry) next() uint32 {
	v, n := binary.Uvarint(e.labels)
	e.labels = e.labels[n:]
	return uint32(v)
}
