package backfill

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// savedVersion is raised when the meaning of a saved field changes.
const savedVersion = 1

// saved is what the state file has.
type saved struct {
	Version int `json:"version"`
	// Job is the fingerprint of the job, About what it is in words.
	Job   string `json:"job"`
	About string `json:"about"`
	// Next is the first chunk that is not ended, Done the evaluations before it.
	Next time.Time `json:"next"`
	Done int64     `json:"done"`
	// Groups are the states after the last chunk, by key.
	Groups map[string]json.RawMessage `json:"groups"`
}

// Fingerprint tells jobs apart: their rules, range and output.
func (j Job) Fingerprint() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d %d\n", j.Where, j.Start.UnixMilli(), j.End.UnixMilli())
	for _, g := range j.Groups {
		b.WriteString(g.String() + "\n")
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:16])
}

func (j Job) about() string {
	return fmt.Sprintf("%d groups from %s to %s, to %s", len(j.Groups), j.Start.UTC().Format(time.RFC3339), j.End.UTC().Format(time.RFC3339), j.Where)
}

// load takes over what an earlier run has saved, and returns the chunk to begin
// with.
func (r *run) load() (next time.Time, err error) {
	content, err := os.ReadFile(r.deps.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read state: %w", err)
	}
	if next, err = r.decode(content); err != nil {
		return time.Time{}, fmt.Errorf("state file %q: %w", r.deps.StateFile, err)
	}
	r.deps.Logger.Info("going on where an earlier run was", "state", r.deps.StateFile, "from", next)
	return next, nil
}

func (r *run) decode(content []byte) (next time.Time, err error) {
	var s saved
	if err := json.Unmarshal(content, &s); err != nil {
		return next, err
	}
	switch {
	case s.Version != savedVersion:
		return next, fmt.Errorf("it is of version %d, this program reads version %d", s.Version, savedVersion)
	case s.Job != r.plan.Job.Fingerprint():
		return next, fmt.Errorf("it is of another backfill or of other rules (%s): remove it to begin anew, or name another file", s.About)
	}
	for _, members := range r.members {
		for _, m := range members {
			if err := json.Unmarshal(s.Groups[m.Key], m.Replay); err != nil {
				return next, err
			}
		}
	}
	r.outcome.Resumed = s.Done
	return s.Next, nil
}

// save replaces the state file, all or nothing.
func (r *run) save(next time.Time) error {
	s := saved{
		Version: savedVersion, Job: r.plan.Job.Fingerprint(), About: r.plan.Job.about(),
		Next: next, Done: r.outcome.Done, Groups: map[string]json.RawMessage{},
	}
	for _, members := range r.members {
		for _, m := range members {
			state, err := json.Marshal(m.Replay)
			if err != nil {
				return err
			}
			s.Groups[m.Key] = state
		}
	}
	content, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := replaceFile(r.deps.StateFile, content); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

func replaceFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// forget removes the state of a job that is done.
func (r *run) forget() error {
	if err := os.Remove(r.deps.StateFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}
