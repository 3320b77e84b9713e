package backend

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

var _ v1.TSDBAdminStats = (*Store)(nil)

// CleanTombstones implements v1.TSDBAdminStats.
func (s *Store) CleanTombstones() error {
	db, err := s.open()
	if err != nil {
		return err
	}
	return db.CleanTombstones()
}

// Delete implements v1.TSDBAdminStats.
func (s *Store) Delete(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) error {
	db, err := s.open()
	if err != nil {
		return err
	}
	return db.Delete(ctx, mint, maxt, ms...)
}

// Snapshot implements v1.TSDBAdminStats.
func (s *Store) Snapshot(dir string, withHead bool) error {
	db, err := s.open()
	if err != nil {
		return err
	}
	return db.Snapshot(dir, withHead)
}

// Stats implements v1.TSDBAdminStats.
func (s *Store) Stats(statsByLabelName string, limit int) (*tsdb.Stats, error) {
	db, err := s.open()
	if err != nil {
		return nil, err
	}
	return db.Head().Stats(statsByLabelName, limit), nil
}

// WALReplayStatus implements v1.TSDBAdminStats; it works during the replay.
func (s *Store) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return s.stats.Head.WALReplayStatus.GetWALReplayStatus(), nil
}

// BlockMetas implements v1.TSDBAdminStats.
func (s *Store) BlockMetas() ([]tsdb.BlockMeta, error) {
	db, err := s.open()
	if err != nil {
		return nil, err
	}
	return db.BlockMetas(), nil
}
