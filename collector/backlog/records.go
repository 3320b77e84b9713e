package backlog

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
)

// series knows the labels that the backend is to get, by the number that the
// log uses. Series that relabelling drops are absent.
type series struct {
	external labels.Labels
	relabel  []*relabel.Config
	builder  *labels.Builder
	byRef    map[chunks.HeadSeriesRef]labels.Labels
}

func newSeries(external labels.Labels, relabelConfigs []*relabel.Config) *series {
	return &series{
		external: external,
		relabel:  relabelConfigs,
		builder:  labels.NewBuilder(labels.EmptyLabels()),
		byRef:    map[chunks.HeadSeriesRef]labels.Labels{},
	}
}

func (s *series) store(refs []record.RefSeries) {
	for _, ref := range refs {
		s.builder.Reset(ref.Labels)
		s.external.Range(func(l labels.Label) {
			if s.builder.Get(l.Name) == "" {
				s.builder.Set(l.Name, l.Value)
			}
		})
		if relabel.ProcessBuilder(s.builder, s.relabel...) {
			s.byRef[ref.Ref] = s.builder.Labels()
		}
	}
}

// take adds what a record holds and is to be sent to the batch.
func (s *Sender) take(rec []byte) error {
	d := &s.decoder
	switch kind := d.Type(rec); kind {
	case record.Series:
		refs, err := d.Series(rec, nil)
		if err != nil {
			return fmt.Errorf("decode log record: %w", err)
		}
		s.series.store(refs)
	case record.Samples:
		refs, err := d.Samples(rec, nil)
		if err != nil {
			return fmt.Errorf("decode log record: %w", err)
		}
		for _, ref := range refs {
			s.add(ref.Ref, remotewrite.Sample{T: ref.T, F: ref.V})
		}
	default:
		if s.cfg.RemoteWrite.SendNativeHistograms {
			return s.takeHistograms(kind, rec)
		}
	}
	return nil
}

func (s *Sender) takeHistograms(kind record.Type, rec []byte) error {
	d := &s.decoder
	switch kind {
	case record.HistogramSamples, record.CustomBucketsHistogramSamples:
		refs, err := d.HistogramSamples(rec, nil)
		if err != nil {
			return fmt.Errorf("decode log record: %w", err)
		}
		for _, ref := range refs {
			s.add(ref.Ref, remotewrite.Sample{T: ref.T, H: ref.H})
		}
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples:
		refs, err := d.FloatHistogramSamples(rec, nil)
		if err != nil {
			return fmt.Errorf("decode log record: %w", err)
		}
		for _, ref := range refs {
			s.add(ref.Ref, remotewrite.Sample{T: ref.T, FH: ref.FH})
		}
	}
	return nil
}

// add takes a sample unless it was sent, is the queue's, is too old for the
// configuration or belongs to a dropped series.
func (s *Sender) add(ref chunks.HeadSeriesRef, smp remotewrite.Sample) {
	l, kept := s.series.byRef[ref]
	if !kept || smp.T <= s.cfg.After || (s.until != 0 && smp.T > s.until) {
		return
	}
	limit := time.Duration(s.cfg.RemoteWrite.QueueConfig.SampleAgeLimit)
	if limit > 0 && smp.T < time.Now().Add(-limit).UnixMilli() {
		s.dropped.Inc()
		return
	}
	smp.Labels = l
	s.batch = append(s.batch, smp)
}
