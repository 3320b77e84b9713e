package scan

import (
	"sync"

	"github.com/prometheus/prometheus/model/labels"
)

// Shape is an ordered list of label sets that never changes. What is worked out
// for a Shape, as which group a label set belongs to, is true for as long as the
// same pointer comes back: reads of the same series in the same order, one slot
// after the other, have the same Shape.
type Shape struct {
	Labels []labels.Labels

	once sync.Once
	// classes numbers label sets such that equal ones have the same number; nil
	// if all differ.
	classes []int32
}

// NewShape returns a Shape of label sets, which it keeps.
func NewShape(all []labels.Labels) *Shape { return &Shape{Labels: all} }

// Collides tells whether two of some rows have equal labels; nil stands for all
// rows.
func (s *Shape) Collides(rows []int32) bool {
	s.once.Do(s.classify)
	if s.classes == nil || rows == nil {
		return s.classes != nil
	}
	seen := make([]bool, len(s.Labels))
	for _, row := range rows {
		if seen[s.classes[row]] {
			return true
		}
		seen[s.classes[row]] = true
	}
	return false
}

func (s *Shape) classify() {
	first := make(map[string]int32, len(s.Labels))
	classes, collide := make([]int32, len(s.Labels)), false
	var buf []byte
	for i, ls := range s.Labels {
		buf = ls.Bytes(buf)
		class, ok := first[string(buf)]
		if !ok {
			class = int32(i)
			first[string(buf)] = class
		}
		collide = collide || ok
		classes[i] = class
	}
	if collide {
		s.classes = classes
	}
}

// Follower makes the Shape of a list that is expected to be the same as another
// one. The zero value expects nothing.
type Follower struct {
	expected *Shape
	// equal is how many label sets were as expected; once one was not, own has
	// all of them.
	equal int
	own   []labels.Labels
}

// Follow returns a Follower; a nil Shape is expected of nobody.
func Follow(expected *Shape) Follower { return Follower{expected: expected} }

// Add appends a label set. Comparing is cheap if it is the very string that was
// there before, as it is while a series is in the head of a TSDB.
func (f *Follower) Add(ls labels.Labels) {
	if f.own == nil {
		if f.expected != nil && f.equal < len(f.expected.Labels) && labels.Equal(f.expected.Labels[f.equal], ls) {
			f.equal++
			return
		}
		f.part(f.equal + 1)
	}
	f.own = append(f.own, ls)
}

// part begins a list that differs.
func (f *Follower) part(size int) {
	f.own = make([]labels.Labels, 0, size)
	if f.expected != nil {
		f.own = append(f.own, f.expected.Labels[:f.equal]...)
	}
}

// Shape is the expected one if all was as expected, otherwise a new one.
func (f *Follower) Shape() *Shape {
	if f.own == nil {
		if f.expected != nil && f.equal == len(f.expected.Labels) {
			return f.expected
		}
		f.part(f.equal)
	}
	return NewShape(f.own)
}
