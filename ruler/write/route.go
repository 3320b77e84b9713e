package write

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
)

// Router knows where series belong. It is immutable.
type Router struct {
	destinations []Destination
	names        []string // of the partition labels
	byPartition  map[string]int
}

// NewRouter returns a router to destinations whose partition labels must be
// disjoint and have the same names everywhere.
func NewRouter(destinations []Destination) (*Router, error) {
	r := &Router{destinations: destinations, byPartition: map[string]int{}}
	for i, d := range destinations {
		r.names = r.names[:0]
		d.Partition.Range(func(l labels.Label) { r.names = append(r.names, l.Name) })
		partition := string(r.partition(d.Partition))
		if other, ok := r.byPartition[partition]; ok {
			return nil, fmt.Errorf("backends %q and %q have the same partition labels %s", destinations[other].Name, d.Name, d.Partition)
		}
		r.byPartition[partition] = i
	}
	return r, nil
}

// Route returns the index of the destination whose partition labels the series
// carries, and the labels that it has there.
func (r *Router) Route(series labels.Labels) (to int, stored labels.Labels, err error) {
	if to, err = r.destination(series); err != nil {
		return 0, labels.EmptyLabels(), err
	}
	if r.destinations[to].Virtual {
		series = labels.NewBuilder(series).Del(r.names...).Labels()
	}
	return to, series, nil
}

func (r *Router) destination(series labels.Labels) (int, error) {
	if len(r.names) == 0 && len(r.destinations) == 1 {
		return 0, nil
	}
	if i, ok := r.byPartition[string(r.partition(series))]; ok {
		return i, nil
	}
	b := labels.NewScratchBuilder(len(r.names))
	for _, n := range r.names {
		b.Add(n, series.Get(n))
	}
	return 0, fmt.Errorf("no backend holds series with %s: %s", b.Labels(), series)
}

// partition is the key of byPartition for series with the labels.
func (r *Router) partition(series labels.Labels) []byte {
	var key []byte
	for _, n := range r.names {
		key = append(append(key, series.Get(n)...), 0xff)
	}
	return key
}
