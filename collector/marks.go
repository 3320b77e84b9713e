package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/config"
)

// marks say, by the key of a remote write, up to which timestamp in
// milliseconds everything was surely sent. They outlive the process, so that
// the next one knows where to go on.
type marks struct {
	file  string
	at    map[string]int64
	saved map[string]int64
}

// loadMarks returns no marks for a collector that starts for the first time.
func loadMarks(storagePath string) (*marks, error) {
	m := &marks{file: filepath.Join(storagePath, "sent.json"), at: map[string]int64{}}
	content, err := os.ReadFile(m.file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was sent before: %w", err)
	}
	if err := json.Unmarshal(content, &m.at); err != nil {
		return nil, fmt.Errorf("read what was sent before from %q, remove it to send only what is new: %w", m.file, err)
	}
	return m, nil
}

func (m *marks) has(key string) bool {
	_, has := m.at[key]
	return has
}

// keepOnly forgets the marks of remote writes that are not configured.
func (m *marks) keepOnly(writes map[string]*config.RemoteWriteConfig) {
	maps.DeleteFunc(m.at, func(key string, _ int64) bool { return writes[key] == nil })
}

// advance moves a mark forward, never back.
func (m *marks) advance(key string, ms int64) {
	if ms > m.at[key] {
		m.at[key] = ms
	}
}

// save replaces the file at once, if a mark has moved.
func (m *marks) save() error {
	if maps.Equal(m.at, m.saved) {
		return nil
	}
	content, err := json.Marshal(m.at)
	if err != nil {
		return err
	}
	next := m.file + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		return fmt.Errorf("save what was sent: %w", err)
	}
	if err := os.Rename(next, m.file); err != nil {
		return fmt.Errorf("save what was sent: %w", err)
	}
	m.saved = maps.Clone(m.at)
	return nil
}
