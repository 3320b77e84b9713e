package backfill

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// TestPlan runs the scripts in testdata. The input is a rule file or manifests:
//
//	plan start=TIME end=TIME     prints the plan
//	slots start=TIME end=TIME    prints the slots of each group, chunk by chunk
func TestPlan(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			groups, errs := rule.Parse("rules.yml", []byte(d.Input), rule.Options{
				Clusters: []labels.Labels{labels.FromStrings("cluster", "east"), labels.FromStrings("cluster", "west")},
				Scope:    plan.Scope,
			})
			require.Empty(t, errs)
			p := NewPlan(Job{Groups: groups, Start: timeArg(t, d, "start"), End: timeArg(t, d, "end"), Where: "nowhere"})
			if d.Cmd == "plan" {
				return p.String()
			}
			return slotsText(p)
		})
	})
}

func timeArg(t *testing.T, d *datadriven.TestData, name string) time.Time {
	t.Helper()
	var text string
	d.ScanArgs(t, name, &text)
	at, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return at
}

func slotsText(p Plan) string {
	var b strings.Builder
	for _, c := range p.chunks() {
		fmt.Fprintf(&b, "%s\n", c.Format(time.RFC3339))
		for _, g := range p.Job.Groups {
			if s := p.slots(g, c); s.Count > 0 {
				fmt.Fprintf(&b, "  %s: %d, %s\n", g.Name, s.Count, s)
			}
		}
	}
	return b.String()
}

// TestSlotsOfAllChunksAreThoseOfTheRange compares with slots one by one: every
// slot of the range is in exactly one chunk, that of its samples.
func TestSlotsOfAllChunksAreThoseOfTheRange(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 9, 59, 31, 7e6, time.UTC)
	for _, interval := range []time.Duration{time.Second, 15 * time.Second, 7 * time.Minute, 5 * time.Hour} {
		for _, offset := range []time.Duration{0, 90 * time.Second, 3 * time.Hour} {
			g := rule.Group{Key: "file/a/b", Interval: interval, QueryOffset: offset}
			p := NewPlan(Job{Groups: []rule.Group{g}, Start: start, End: start.Add(11 * time.Hour)})
			var got []time.Time
			for _, c := range p.chunks() {
				s := p.slots(g, c)
				for n := range s.Count {
					recorded := s.at(n).Add(-offset)
					require.False(t, recorded.Before(c) || !recorded.Before(c.Add(ChunkLength)), "slot %s in chunk %s", s.at(n), c)
					got = append(got, s.at(n))
				}
			}
			require.False(t, got[0].Before(start))
			require.True(t, got[0].Add(-interval).Before(start))
			require.False(t, got[len(got)-1].After(p.Job.End))
			require.True(t, got[len(got)-1].Add(interval).After(p.Job.End))
			for i := 1; i < len(got); i++ {
				require.Equal(t, interval, got[i].Sub(got[i-1]))
			}
		}
	}
}
