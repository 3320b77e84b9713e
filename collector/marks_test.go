package collector

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
)

func TestMarksOutliveTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, err := loadMarks(dir)
	require.NoError(t, err)
	require.False(t, m.has("a"))
	m.advance("a", 10)
	m.advance("a", 5)
	m.advance("b", 7)
	require.NoError(t, m.save())
	m, err = loadMarks(dir)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"a": 10, "b": 7}, m.at)
	m.keepOnly(map[string]*config.RemoteWriteConfig{"b": {}})
	require.False(t, m.has("a"))
}

func TestMarksThatCannotBeReadAreAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sent.json"), []byte("{"), 0o600))
	_, err := loadMarks(dir)
	require.ErrorContains(t, err, filepath.Join(dir, "sent.json"))
	require.ErrorContains(t, err, "remove it")
}
