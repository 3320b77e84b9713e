package forward

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// metadata is that of every metric in the table, as remote write 1.0 wants it:
// by the family's name.
func (t *table) metadata() []prompb.MetricMetadata {
	families := map[string]prompb.MetricMetadata{}
	for number := range t.offsets {
		if !t.kept(uint32(number)) {
			continue
		}
		s := t.entry(uint32(number))
		m := prompb.MetricMetadata{Type: prompb.MetricMetadata_MetricType(s.kind), Help: t.symbols[s.help], Unit: t.symbols[s.unit]}
		if m.Type == prompb.MetricMetadata_UNKNOWN && m.Help == "" {
			continue
		}
		m.MetricFamilyName = family(t.name(s), s.kind)
		families[m.MetricFamilyName] = m
	}
	all := make([]prompb.MetricMetadata, 0, len(families))
	for _, m := range families {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b prompb.MetricMetadata) int { return strings.Compare(a.MetricFamilyName, b.MetricFamilyName) })
	return all
}

func (t *table) name(s entry) string {
	for range s.n {
		name, value := t.symbols[s.next()], t.symbols[s.next()]
		if name == model.MetricNameLabel {
			return value
		}
	}
	return ""
}

// family is the name of the metric that a series is a part of.
func family(name string, kind writev2.Metadata_MetricType) string {
	switch kind {
	case writev2.Metadata_METRIC_TYPE_HISTOGRAM, writev2.Metadata_METRIC_TYPE_GAUGEHISTOGRAM, writev2.Metadata_METRIC_TYPE_SUMMARY:
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base, found := strings.CutSuffix(name, suffix); found {
				return base
			}
		}
	default:
	}
	return name
}
