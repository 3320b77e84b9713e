package forward

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/prometheus/config"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

// saveInterval is how often positions are saved at most. What was sent since
// is sent again after a kill.
const saveInterval = 500 * time.Millisecond

// positions say, by the key of a remote write, up to where everything was
// sent. They outlive the process.
type positions struct {
	file string

	mu    sync.Mutex
	at    map[string]wal.Position
	saved time.Time
}

// loadPositions returns none for a collector that starts for the first time.
func loadPositions(dir string) (*positions, error) {
	p := &positions{file: filepath.Join(dir, "positions.json"), at: map[string]wal.Position{}}
	content, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was sent before: %w", err)
	}
	if err := json.Unmarshal(content, &p.at); err != nil {
		return nil, fmt.Errorf("read what was sent before from %q, remove it to send only what is new: %w", p.file, err)
	}
	return p, nil
}

func (p *positions) get(key string) wal.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at[key]
}

// keep forgets the positions of remote writes that are not configured and
// lets new ones begin at the end.
func (p *positions) keep(writes map[string]*config.RemoteWriteConfig, end wal.Position) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.at, func(key string, _ wal.Position) bool { return writes[key] == nil })
	for key := range writes {
		if _, known := p.at[key]; !known {
			p.at[key] = end
		}
	}
	return p.write()
}

// advance moves a position, and saves all if it was not done just now.
func (p *positions) advance(key string, to wal.Position) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[key] = to
	if time.Since(p.saved) < saveInterval {
		return nil
	}
	return p.write()
}

// least is the position that is behind all others.
func (p *positions) least() (least wal.Position, any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.at {
		if !any || at.Segment < least.Segment {
			least, any = at, true
		}
	}
	return least, any
}

func (p *positions) save() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.write()
}

// write replaces the file at once.
func (p *positions) write() error {
	p.saved = time.Now()
	content, err := json.Marshal(p.at)
	if err != nil {
		return err
	}
	next := p.file + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		return fmt.Errorf("save what was sent: %w", err)
	}
	if err := os.Rename(next, p.file); err != nil {
		return fmt.Errorf("save what was sent: %w", err)
	}
	return nil
}
