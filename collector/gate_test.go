package collector

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
)

// ledger counts how the scrapes behind a gate ended.
type ledger struct{ committed, rolledBack int }

func (l *ledger) Appender(context.Context) storage.Appender { return entry{ledger: l} }

type entry struct {
	storage.Appender
	*ledger
}

func (e entry) Commit() error {
	e.committed++
	return nil
}

func (e entry) Rollback() error {
	e.rolledBack++
	return nil
}

func TestGateWaitsForScrapesInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		g := newGate(l)
		first, second := g.Appender(t.Context()), g.Appender(t.Context())
		closed := make(chan time.Time, 1)
		go func() {
			g.close()
			closed <- time.Now()
		}()
		synctest.Wait()
		late := g.Appender(t.Context())
		require.NoError(t, first.Commit())
		require.NoError(t, late.Commit())
		synctest.Wait()
		require.Empty(t, closed)
		require.NoError(t, second.Rollback())
		<-closed
		require.Equal(t, 1, l.committed)
		require.Equal(t, 2, l.rolledBack)
	})
}

func TestGateCutsOffScrapesThatTakeTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		g := newGate(l)
		slow := g.Appender(t.Context())
		begin := time.Now()
		g.close()
		require.Equal(t, inFlightTimeout, time.Since(begin))
		require.NoError(t, slow.Commit())
		require.Zero(t, l.committed)
		require.Equal(t, 1, l.rolledBack)
	})
}
