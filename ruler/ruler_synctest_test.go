package ruler

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// pass lets virtual time go by and everything settle.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time of a synctest bubble
	synctest.Wait()
}

func manyGroups(n int) []rule.Group {
	groups := make([]rule.Group, n)
	for i := range groups {
		groups[i] = recording(fmt.Sprintf("g%02d", i), fmt.Sprintf("r%02d", i), "x")
	}
	return groups
}

func seriesName(i int) string { return fmt.Sprintf(`{__name__="r%02d"}`, i) }

func TestMembersShareGroupsAndEverySlotIsRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, manyGroups(30)...)
		for _, name := range []string{"a", "b", "c"} {
			w.add(name)
		}
		pass(5 * time.Minute)
		counts := map[string]int{}
		for i := range 30 {
			owners := w.owners(fmt.Sprintf("g%02d", i))
			require.Len(t, owners, 1)
			counts[owners[0]]++
			w.requireNoHole(seriesName(i))
		}
		require.Len(t, counts, 3, "every member owns something")
	})
}

func TestAKilledMemberLeavesNoHole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, manyGroups(30)...)
		for _, name := range []string{"a", "b", "c"} {
			w.add(name)
		}
		pass(2*time.Minute + 7*time.Second)
		w.kill("b")
		pass(5 * time.Second) // until the others notice
		w.gossip()
		pass(2 * time.Minute)
		for i := range 30 {
			w.requireNoHole(seriesName(i))
		}
		w.add("b")
		pass(2 * time.Minute)
		for i := range 30 {
			require.Len(t, w.owners(fmt.Sprintf("g%02d", i)), 1)
			w.requireNoHole(seriesName(i))
		}
	})
}

func TestBothSidesOfAPartitionEvaluateAndOneGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups := append(manyGroups(10), alerting("alert", time.Minute))
		w := newWorld(t, groups...)
		for _, name := range []string{"a", "b", "c"} {
			w.add(name)
		}
		pass(3 * time.Minute)
		fired := w.sent[0].StartsAt
		w.cut("a")
		pass(3 * time.Minute)
		for _, g := range groups {
			require.Len(t, w.owners(g.Key), 2, "each side has an owner of %s", g.Key)
		}
		w.cut()
		pass(time.Minute)
		for i, g := range groups {
			require.Len(t, w.owners(g.Key), 1, g.Key)
			if i < 10 {
				w.requireNoHole(seriesName(i))
			}
		}
		for _, n := range w.sent {
			require.Equal(t, fired, n.StartsAt, "no alert started over")
		}
	})
}

func TestALeavingMemberHandsOverBetweenSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, manyGroups(10)...)
		for _, name := range []string{"a", "b", "c"} {
			w.add(name)
		}
		pass(2 * time.Minute)
		start := time.Now()
		w.leave("a")
		w.leave("b")
		require.Less(t, time.Since(start), 2*time.Second, "a graceful leave does not wait for timeouts")
		pass(2 * time.Minute)
		for i := range 10 {
			require.Equal(t, []string{"c"}, w.owners(fmt.Sprintf("g%02d", i)))
			w.requireNoHole(seriesName(i))
		}
	})
}

func TestTheWholeClusterStartsAgainWhereItEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, manyGroups(10)...)
		w.add("a")
		pass(2 * time.Minute)
		w.kill("a")
		pass(20 * time.Minute)
		w.add("b")
		pass(2 * time.Minute)
		for i := range 10 {
			w.requireNoHole(seriesName(i))
		}
	})
}

func TestSlotsMissedWhileABackendWasAwayAreRecordedLater(t *testing.T) {
	t.Parallel()
	for what, fail := range map[string]func(*world, error){
		"queries fail": func(w *world, err error) { w.queriesFail = err },
		"writes fail":  func(w *world, err error) { w.writesFail = err },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, manyGroups(3)...)
				w.add("a")
				w.add("b")
				pass(time.Minute)
				w.set(fail, errors.New("away"))
				pass(30 * time.Minute)
				w.kill("a") // what is behind moves with the group
				pass(5 * time.Second)
				w.gossip()
				pass(time.Minute)
				w.set(fail, nil)
				pass(3 * time.Minute)
				for i := range 3 {
					w.requireNoHole(seriesName(i))
				}
			})
		})
	}
}

// While writes fail an alert fires, its owner dies, and another resolves: in the
// end the backend has every sample that it would have had.
func TestSamplesOfAlertsAreWrittenLaterWithTheStateThatTheyHad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, alerting("g", 2*time.Minute))
		began := time.Now()
		w.result = func(_ string, at time.Time) promql.Vector {
			var v promql.Vector
			for pod, until := range map[string]time.Duration{"p1": time.Hour, "p2": 4 * time.Minute} {
				if at.Sub(began) < until {
					v = append(v, promql.Sample{Metric: labels.FromStrings("pod", pod), F: 1, T: at.UnixMilli()})
				}
			}
			return v
		}
		w.add("a")
		w.add("b")
		pass(time.Minute)
		w.set(func(w *world, err error) { w.writesFail = err }, errors.New("away"))
		pass(2 * time.Minute)
		owner := w.owners("g")[0]
		w.kill(owner)
		pass(5 * time.Second)
		w.gossip()
		pass(5 * time.Minute)
		w.set(func(w *world, err error) { w.writesFail = err }, nil)
		pass(time.Minute)

		pending, firing := `{__name__="ALERTS", alertname="Down", alertstate="pending", pod=%q}`, `{__name__="ALERTS", alertname="Down", alertstate="firing", pod=%q}`
		for _, pod := range []string{"p1", "p2"} {
			slots := append(w.slots(fmt.Sprintf(pending, pod)), w.slots(fmt.Sprintf(firing, pod))...)
			require.Len(t, w.slots(fmt.Sprintf(pending, pod)), 8, "pending for two minutes")
			for i := 1; i < len(slots); i++ {
				require.EqualValues(t, 15, slots[i]-slots[i-1], "%s: hole after slot %d", pod, i)
			}
		}
		p1 := w.slots(fmt.Sprintf(firing, "p1"))
		require.Less(t, time.Since(time.Unix(p1[len(p1)-1], 0)), interval+time.Second)
		p2 := w.slots(fmt.Sprintf(firing, "p2"))
		ended := time.Unix(p2[len(p2)-1], 0).Add(interval)
		require.True(t, value.IsStaleNaN(w.data[fmt.Sprintf(firing, "p2")][ended.UnixMilli()]), "marked as ended when it resolved")
		require.Empty(t, w.conflicts)
	})
}

// Groups of three backends share slots and batches. One that takes longer than
// an interval to write to delays the groups that write there and no others,
// however many batches wait for it.
func TestASlowWriteDelaysOnlyThoseWhoWriteThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups := manyGroups(30)
		for i := range groups {
			groups[i].Scope = labels.FromStrings("backend", []string{"east", "slow", "west"}[i%3])
			groups[i].Rules = append(groups[i].Rules, rule.Rule{Record: "second", Expr: mustParse(groups[i].Rules[0].Record)})
		}
		w := newWorld(t, groups...)
		w.writeTakes = func(where []string) time.Duration {
			if slices.Contains(where, "slow") {
				return 40 * time.Second
			}
			return 0
		}
		w.add("a")
		pass(5 * time.Minute)
		for i := range groups {
			name := groups[i].Scope.Get("backend")
			series := fmt.Sprintf(`{__name__="r%02d", backend=%q}`, i, name)
			if name != "slow" {
				w.requireNoHole(series)
				continue
			}
			require.NotEmpty(t, w.slots(series))
		}
		w.set(func(w *world, _ error) { w.writeTakes = nil }, nil)
		pass(5 * time.Minute)
		for i := range groups {
			w.requireNoHole(fmt.Sprintf(`{__name__="r%02d", backend=%q}`, i, groups[i].Scope.Get("backend")))
		}
	})
}

// Two of thirty tenants have rules that take longer than an interval, in groups
// with several slots: after a while all others have their slots in time.
func TestTenantsWithSlowRulesDelayOnlyThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups := manyGroups(120)
		for i := range groups {
			groups[i].Key = fmt.Sprintf("rules/t%02d/g%d", i/4, i%4)
			groups[i].Scope = labels.FromStrings("tenant", fmt.Sprintf("t%02d", i/4))
		}
		slow := func(tenant string) bool { return tenant == "t07" || tenant == "t23" }
		w := newWorld(t, groups...)
		w.evaluationTakes = func(queries []Query) time.Duration {
			if slices.ContainsFunc(queries, func(q Query) bool { return slow(q.Scope.Get("tenant")) }) {
				return 20 * time.Second
			}
			return 10 * time.Millisecond
		}
		m := w.add("a")
		pass(5 * time.Minute) // until they are found
		for range 20 {
			pass(7 * time.Second)
			for _, g := range m.Status() {
				if !slow(g.Group.Scope.Get("tenant")) && !g.Progress.Slot.IsZero() {
					require.Less(t, time.Since(g.Progress.Slot), time.Second, "%s is %+v", g.Group.Key, g.Progress)
				}
			}
		}
		w.set(func(w *world, _ error) { w.evaluationTakes = nil }, nil)
		pass(5 * time.Minute)
		for i := range groups {
			w.requireNoHole(fmt.Sprintf(`{__name__="r%02d", tenant="t%02d"}`, i, i/4))
		}
	})
}

func (w *world) set(fail func(*world, error), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fail(w, err)
}

// alerting is a group of one alerting rule.
func alerting(key string, hold time.Duration) rule.Group {
	return rule.Group{Key: key, Name: key, Interval: interval, Rules: []rule.Rule{{Alert: "Down", Expr: mustParse("x > 0"), For: hold}}}
}

func TestAlertTimersSurviveEveryChangeOfOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, alerting("g", 4*time.Minute))
		for _, name := range []string{"a", "b", "c"} {
			w.add(name)
		}
		began := time.Now()
		for range 3 {
			pass(time.Minute)
			owner := w.owners("g")[0]
			w.kill(owner)
			pass(5 * time.Second)
			w.gossip()
			pass(10 * time.Second)
			w.add(owner)
		}
		pass(time.Minute)
		require.NotEmpty(t, w.sent)
		fired := w.sent[0].StartsAt
		require.InDelta(t, 4*time.Minute, fired.Sub(began), float64(20*time.Second), "for is waited out once")
		for _, n := range w.sent {
			require.Equal(t, fired, n.StartsAt, "nothing was reset")
			require.False(t, n.Resolved)
		}
		require.Empty(t, w.conflicts)
	})
}

func TestAlertsGoOnAfterTheWholeClusterWasAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, alerting("g", time.Minute))
		w.add("a")
		pass(3 * time.Minute)
		fired := w.sent[0].StartsAt
		w.kill("a")
		pass(5 * time.Minute)
		w.sent = nil
		w.add("b")
		pass(30 * time.Second)
		require.NotEmpty(t, w.sent, "it fires at once, for is not waited out again")
		require.Equal(t, fired, w.sent[0].StartsAt)
	})
}

// Prometheus takes a backend that does not answer for one without alerts.
func TestAlertsGoOnAlsoIfTheBackendAnswersLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, alerting("g", time.Minute))
		w.add("a")
		pass(3 * time.Minute)
		fired := w.sent[0].StartsAt
		w.kill("a")
		w.sent = nil
		w.queriesFail = errors.New("backend is away")
		w.add("b")
		pass(20 * time.Second)
		require.Empty(t, w.sent)
		w.mu.Lock()
		w.queriesFail = nil
		w.mu.Unlock()
		pass(30 * time.Second)
		require.NotEmpty(t, w.sent)
		require.Equal(t, fired, w.sent[0].StartsAt)
	})
}

func TestSeriesThatVanishAreMarkedAlsoByTheNextOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, recording("g", "r", "x"))
		w.result = func(_ string, at time.Time) promql.Vector {
			return promql.Vector{{Metric: labels.FromStrings("pod", "p1"), F: 1, T: at.UnixMilli()}}
		}
		w.add("a")
		w.add("b")
		pass(time.Minute)
		owner := w.owners("g")[0]
		w.kill(owner)
		w.mu.Lock()
		w.result = func(string, time.Time) promql.Vector { return nil }
		w.mu.Unlock()
		pass(5 * time.Second)
		w.gossip()
		pass(time.Minute)
		markers := 0
		for _, v := range w.data[`{__name__="r", pod="p1"}`] {
			if value.IsStaleNaN(v) {
				markers++
			}
		}
		require.Equal(t, 1, markers)
	})
}

// The series that a group recorded before the cluster stopped are read from the
// backend. One that two rules may have recorded is nobody's.
func TestSeriesThatVanishWhileTheWholeClusterIsAwayAreMarked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := alerting("g", 0)
		g.QueryOffset = 10 * time.Second
		g.Rules = append(g.Rules,
			rule.Rule{Record: "r", Expr: mustParse("x"), Labels: labels.FromStrings("team", "a")},
			rule.Rule{Record: "r", Expr: mustParse("y"), Labels: labels.FromStrings("team", "b")},
			rule.Rule{Record: "twice", Expr: mustParse("x")}, rule.Rule{Record: "twice", Expr: mustParse("y")})
		w := newWorld(t, g)
		pods := []string{"p1", "p2"}
		w.result = func(expr string, at time.Time) (v promql.Vector) {
			for _, pod := range pods {
				v = append(v, promql.Sample{Metric: labels.FromStrings("pod", pod, "of", expr[:1]), F: 1, T: at.UnixMilli()})
			}
			return v
		}
		w.add("a")
		pass(time.Minute)
		w.kill("a")
		pods = pods[:1]
		pass(20 * time.Second)
		w.add("b")
		pass(time.Minute)
		ends := map[string]int{}
		for name, points := range w.data {
			for _, v := range points {
				if value.IsStaleNaN(v) {
					ends[name]++
				}
			}
		}
		require.Equal(t, map[string]int{
			`{__name__="r", of="x", pod="p2", team="a"}`:                                   1,
			`{__name__="r", of="y", pod="p2", team="b"}`:                                   1,
			`{__name__="ALERTS", alertname="Down", alertstate="firing", of="x", pod="p2"}`: 1,
			`{__name__="ALERTS_FOR_STATE", alertname="Down", of="x", pod="p2"}`:            1,
		}, ends)
	})
}

func TestAnEditedGroupKeepsTheStateOfRulesThatStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := alerting("g", 2*time.Minute)
		g.Rules = append(g.Rules, rule.Rule{Record: "r", Expr: mustParse("x")})
		w := newWorld(t, g)
		m := w.add("a")
		began := time.Now()
		pass(90 * time.Second)
		edited := g
		edited.Rules = []rule.Rule{g.Rules[0]}
		edited.Rules[0].Expr = mustParse("x > 1")
		m.SetGroups([]rule.Group{edited})
		pass(time.Minute)
		require.NotEmpty(t, w.sent)
		require.InDelta(t, 2*time.Minute, w.sent[0].StartsAt.Sub(began), float64(20*time.Second))
		var last int64
		for ts := range w.data[`{__name__="r"}`] {
			last = max(last, ts)
		}
		require.True(t, value.IsStaleNaN(w.data[`{__name__="r"}`][last]), "the removed rule's series is marked as ended")
	})
}

// What becomes of a rule whose group gets another key, as when a second file
// has a group of its name: the backend tells the new group how far it was.
func TestARuleThatMovesToAnotherGroupGoesOnThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := alerting("file/g", 2*time.Minute)
		g.Rules = append(g.Rules, rule.Rule{Record: "r", Expr: mustParse("x")}, rule.Rule{Record: "gone", Expr: mustParse("x")})
		w := newWorld(t, g)
		m := w.add("a")
		began := time.Now()
		pass(90 * time.Second)
		moved := g
		moved.Key, moved.Rules = "file/a/g", g.Rules[:2]
		m.SetGroups([]rule.Group{moved})
		pass(time.Minute)
		require.NotEmpty(t, w.sent)
		require.InDelta(t, 2*time.Minute, w.sent[0].StartsAt.Sub(began), float64(20*time.Second), "for is waited out once")
		for name, ends := range map[string]int{`{__name__="r"}`: 0, `{__name__="gone"}`: 1} {
			markers := 0
			for _, v := range w.data[name] {
				if value.IsStaleNaN(v) {
					markers++
				}
			}
			require.Equal(t, ends, markers, name)
		}
	})
}

func TestARuleReadsWhatAnEarlierOneRecordedAtTheSameSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := recording("g", "first", "x")
		g.Rules = append(g.Rules, rule.Rule{Record: "second", Expr: mustParse("first")})
		w := newWorld(t, g)
		w.result = func(expr string, at time.Time) promql.Vector {
			if expr == "x" {
				return promql.Vector{{F: float64(at.Unix()), T: at.UnixMilli()}}
			}
			v, ok := w.data[`{__name__="first"}`][at.UnixMilli()]
			if !ok {
				return nil
			}
			return promql.Vector{{F: v, T: at.UnixMilli()}}
		}
		w.add("a")
		pass(2 * time.Minute)
		require.Equal(t, w.slots(`{__name__="first"}`), w.slots(`{__name__="second"}`))
		w.requireNoHole(`{__name__="second"}`)
	})
}

func TestScopeLabelsCannotBeOverwritten(t *testing.T) {
	t.Parallel()
	g := rule.Group{Scope: labels.FromStrings("cluster", "east")}
	r := rule.Rule{Record: "r", Labels: labels.FromStrings("team", "a", "gone", "")}
	got, err := record(g, r, promql.Vector{{Metric: labels.FromStrings("__name__", "x", "cluster", "west", "gone", "y")}})
	require.NoError(t, err)
	require.Equal(t, `{__name__="r", cluster="east", team="a"}`, got[0].Metric.String())
	_, err = record(g, r, promql.Vector{{Metric: labels.FromStrings("gone", "x")}, {Metric: labels.FromStrings("gone", "y")}})
	require.ErrorIs(t, err, errDuplicate)
	g.Limit = 1
	_, err = record(g, r, make(promql.Vector, 2))
	require.EqualError(t, err, "exceeded limit of 1 with 2 series")
}
