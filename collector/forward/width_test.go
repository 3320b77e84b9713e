package forward

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

func TestWidthFollowsWhatThereIsToSend(t *testing.T) {
	t.Parallel()
	w := newWidth(2, 10)
	for _, step := range []struct {
		name string
		last wave
		want int64
	}{
		{"one request is enough", wave{requests: 1}, 2},
		{"there is more than two can hold", wave{requests: 2, full: true}, 4},
		{"there is more than four can hold", wave{requests: 4, full: true}, 8},
		{"no more than allowed", wave{requests: 8, full: true}, 10},
		{"still behind", wave{requests: 10, full: true}, 10},
		{"the destination is away", wave{requests: 10, full: true, away: true}, 5},
		{"and again", wave{requests: 3, away: true}, 2},
		{"it is back", wave{requests: 2, full: true}, 4},
		{"three are needed to keep up", wave{requests: 3}, 3},
		{"nothing is behind", wave{requests: 1}, 2},
	} {
		w.adapt(step.last)
		require.Equal(t, step.want, w.now.Load(), step.name)
	}
	require.EqualValues(t, 1, newWidth(5, 1).now.Load(), "the greatest number counts")
	require.EqualValues(t, 1, newWidth(0, 0).now.Load())
}

func TestSplitKeepsSeriesTogetherAndInOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 0))
	for range 200 {
		series, most := 1+random.IntN(50), 1+random.IntN(20)
		items := make([]item, random.IntN(200))
		sent := map[uint32][]int64{}
		for i := range items {
			number := uint32(random.IntN(series))
			items[i] = item{Sample: wal.Sample{Number: number, T: int64(i)}}
			sent[number] = append(sent[number], int64(i))
		}
		n, got, in := 0, map[uint32][]int64{}, map[uint32]int{}
		for lot, some := range split(items, most) {
			n += len(some)
			for _, it := range some {
				if earlier, known := in[it.Number]; known {
					require.Equal(t, lot, earlier, "series %d is in two lots", it.Number)
				}
				in[it.Number] = lot
				got[it.Number] = append(got[it.Number], it.T)
			}
			require.True(t, len(some) <= most || some[0].Number == some[len(some)-1].Number, "a lot of %d items of several series, %d are allowed", len(some), most)
		}
		if n > 0 {
			require.Equal(t, sent, got)
		}
		require.Equal(t, len(items), n)
	}
}

func TestSplitMakesNoMoreLotsThanNeeded(t *testing.T) {
	t.Parallel()
	var items []item
	for range 3 { // scrapes
		for number := range uint32(1000) {
			items = append(items, item{Sample: wal.Sample{Number: number}})
		}
	}
	require.Len(t, split(items, 3000), 1)
	lots := split(items, 1000)
	require.Len(t, lots, 4, "three, and what whole series leave over")
	require.Len(t, lots[0], 999)
	require.Len(t, split(items[:900], 300), 3)
}
