package scan_test

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/scan"
)

func labelSets(values ...string) (all []labels.Labels) {
	for _, v := range values {
		all = append(all, labels.FromStrings("a", v))
	}
	return all
}

func TestTheSameSeriesHaveTheSameShape(t *testing.T) {
	t.Parallel()
	expected := scan.NewShape(labelSets("1", "2", "3"))
	for _, tc := range []struct {
		name     string
		expected *scan.Shape
		got      []string
		same     bool
	}{
		{"equal", expected, []string{"1", "2", "3"}, true},
		{"fewer", expected, []string{"1", "2"}, false},
		{"none any more", expected, nil, false},
		{"more", expected, []string{"1", "2", "3", "4"}, false},
		{"another one first", expected, []string{"0", "2", "3"}, false},
		{"another one last", expected, []string{"1", "2", "4"}, false},
		{"another order", expected, []string{"1", "3", "2"}, false},
		{"nothing expected", nil, []string{"1"}, false},
		{"nothing at all", nil, nil, false},
		{"none, as expected", scan.NewShape(nil), nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := scan.Follow(tc.expected)
			for _, ls := range labelSets(tc.got...) {
				f.Add(ls)
			}
			got := f.Shape()
			require.Equal(t, tc.same, got == tc.expected)
			require.ElementsMatch(t, labelSets(tc.got...), got.Labels)
			require.Len(t, expected.Labels, 3)
		})
	}
}

func TestRowsCollideIfTheirLabelsAreEqual(t *testing.T) {
	t.Parallel()
	unique, twice := scan.NewShape(labelSets("1", "2")), scan.NewShape(labelSets("1", "2", "1"))
	require.False(t, unique.Collides(nil))
	require.False(t, unique.Collides([]int32{1, 0}))
	require.True(t, twice.Collides(nil))
	require.True(t, twice.Collides([]int32{2, 0}))
	require.False(t, twice.Collides([]int32{2, 1}))
	require.False(t, twice.Collides([]int32{}))
}
