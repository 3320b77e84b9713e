package wal

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

var generous = Options{MaxSize: 1 << 30, MaxAge: time.Hour}

func open(t *testing.T, dir string, opts Options) *Log {
	t.Helper()
	l, err := Open(dir, opts, Deps{Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// scrape commits one sample for each of the series, whose value is the time.
func scrape(t *testing.T, l *Log, at int64, names ...string) {
	t.Helper()
	a := l.Appender(t.Context())
	for _, name := range names {
		_, err := a.Append(0, labels.FromStrings("__name__", name, "job", "j"), at, float64(at))
		require.NoError(t, err)
	}
	require.NoError(t, a.Commit())
}

// collected is what a reader has seen, with the labels of the segment.
type collected struct {
	*Reader

	segment int
	series  []Series
	text    []string
}

func newCollected(l *Log, from Position) *collected { return &collected{Reader: l.Reader(from)} }

// one reads a record.
func (c *collected) one(t *testing.T) bool {
	t.Helper()
	rec, err := c.Next()
	if err != nil {
		require.ErrorIs(t, err, ErrEnd)
		return false
	}
	if rec.Segment != c.segment {
		c.segment, c.series = rec.Segment, nil
	}
	if rec.Lost > 0 {
		c.text = append(c.text, fmt.Sprintf("%d lost", rec.Lost))
	}
	c.series = append(c.series, rec.Series...)
	for _, s := range rec.Samples {
		c.text = append(c.text, fmt.Sprintf("%s@%d=%v", c.series[s.Number].Labels.Get("__name__"), s.T, s.V))
	}
	return true
}

// rest reads to the end and returns all that was seen.
func (c *collected) rest(t *testing.T) string {
	t.Helper()
	for c.one(t) {
	}
	return strings.Join(c.text, " ")
}

func TestReaderGoesOnOverRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, generous)
	r := newCollected(l, l.End())
	scrape(t, l, 1, "a", "b")
	require.Equal(t, "a@1=1 b@1=1", r.rest(t))
	at := r.Position()
	scrape(t, l, 2, "a", "b", "c")
	require.NoError(t, l.Close())
	for run := int64(3); run < 6; run++ {
		l = open(t, dir, generous)
		require.True(t, newCollected(l, at).one(t))
		scrape(t, l, run, "b")
		require.NoError(t, l.Close())
	}
	l = open(t, dir, generous)
	require.Equal(t, "a@2=2 b@2=2 c@2=2 b@3=3 b@4=4 b@5=5", newCollected(l, at).rest(t))
	require.EqualValues(t, 8, l.Committed())
}

// cut ends the segment as its size or age does.
func cut(t *testing.T, l *Log) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.NoError(t, l.cut(time.Now()))
}

func TestLimitsDropTheOldestAndReadersCountIt(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{
		"size": {MaxSize: 1},
		"age":  {MaxAge: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t, t.TempDir(), opts)
			r := newCollected(l, l.End())
			scrape(t, l, 1, "a", "b")
			require.True(t, r.one(t))
			scrape(t, l, 2, "a", "b")
			cut(t, l)
			scrape(t, l, 3, "a")
			cut(t, l)
			scrape(t, l, 4, "a")
			l.enforceLimits(time.Now().Add(2 * time.Minute))
			require.Equal(t, "a@1=1 b@1=1 3 lost a@4=4", r.rest(t))
			require.Equal(t, "4 lost a@4=4", newCollected(l, Position{Segment: 1, Offset: 24, Samples: 1}).rest(t))
			require.Len(t, l.segments, 1)
		})
	}
}

func TestReleaseKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir(), Options{})
	r := newCollected(l, l.End())
	scrape(t, l, 1, "a")
	cut(t, l)
	scrape(t, l, 2, "a")
	require.True(t, r.one(t))
	l.Release(r.Position())
	require.Len(t, l.segments, 2)
	require.Equal(t, "a@1=1 a@2=2", r.rest(t))
	l.Release(r.Position())
	require.Len(t, l.segments, 1)
	l.enforceLimits(time.Now().Add(time.Hour))
	require.Len(t, l.segments, 1)
}

func TestDamage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		damage func(content []byte) []byte
		want   string
	}{
		"a torn end":             {func(c []byte) []byte { return c[:len(c)-3] }, "a@1=1 b@1=1 a@3=3"},
		"a torn head":            {func(c []byte) []byte { return append(c, 0, 0, 1) }, "a@1=1 b@1=1 a@2=2 b@2=2 a@3=3"},
		"zeros after the end":    {func(c []byte) []byte { return append(c, make([]byte, 4096)...) }, "a@1=1 b@1=1 a@2=2 b@2=2 a@3=3"},
		"a flipped bit":          {func(c []byte) []byte { c[len(c)-1] ^= 1; return c }, "a@1=1 b@1=1 2 lost a@3=3"},
		"a header without magic": {func(c []byte) []byte { c[0]++; return c }, "a@3=3"},
		"an empty file":          {func([]byte) []byte { return nil }, "a@3=3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, dir, generous)
			scrape(t, l, 1, "a", "b")
			scrape(t, l, 2, "a", "b")
			require.NoError(t, l.Close())
			file := segment{number: 1}.path(dir)
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, tc.damage(content), 0o600))
			l = open(t, dir, generous)
			scrape(t, l, 3, "a")
			require.Equal(t, tc.want, newCollected(l, Position{}).rest(t))
		})
	}
}

func TestDirectoryInUseIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir, generous)
	_, err := Open(dir, generous, Deps{Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	require.ErrorIs(t, err, syscall.EWOULDBLOCK)
}

func TestFailedWriteLosesNoLaterScrape(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir(), generous)
	r := newCollected(l, l.End())
	scrape(t, l, 1, "a")
	// The disk fails in the middle of the log's life.
	require.NoError(t, l.file.Close())
	a := l.Appender(t.Context())
	_, err := a.Append(0, labels.FromStrings("__name__", "b"), 2, 2)
	require.NoError(t, err)
	require.Error(t, a.Commit())
	scrape(t, l, 3, "a", "b")
	require.Equal(t, "a@1=1 a@3=3 b@3=3", r.rest(t))
}
