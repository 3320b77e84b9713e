package up

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/tocsin-rules/tocsin/deploy"
)

// gossipKeyBytes selects AES-256.
const gossipKeyBytes = 32

// dirs names what is inside a data directory.
type dirs string

func (d dirs) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}
func (d dirs) lock() string               { return d.path("lock") }
func (d dirs) ca() string                 { return d.path("pki", "ca.crt") }
func (d dirs) cert() string               { return d.path("pki", "tls.crt") }
func (d dirs) key() string                { return d.path("pki", "tls.key") }
func (d dirs) gossipKey() string          { return d.path("gossip.key") }
func (d dirs) config(name string) string  { return d.path("config", name) }
func (d dirs) rules() string              { return d.path("rules") }
func (d dirs) log(process string) string  { return d.path("logs", process+".log") }
func (d dirs) data(process string) string { return d.path(process) }

// dataDir is an open, locked data directory.
type dataDir struct {
	dirs
	lock   fileutil.Releaser
	remove bool
}

// openDataDir creates the directory if need be and locks it.
func openDataDir(o Options) (*dataDir, error) {
	path, err := o.dataPath()
	if err != nil {
		return nil, err
	}
	d := &dataDir{dirs: dirs(path), remove: o.Ephemeral}
	for _, sub := range []string{"", "pki", "config", "logs"} {
		if err := os.MkdirAll(d.path(sub), 0o700); err != nil {
			return nil, fmt.Errorf("create data directory: %w", err)
		}
	}
	if err := d.acquire(); err != nil {
		return nil, err
	}
	return d, nil
}

func (o Options) dataPath() (string, error) {
	switch {
	case o.Ephemeral:
		path, err := os.MkdirTemp("", "tocsin-")
		if err != nil {
			return "", fmt.Errorf("create temporary data directory: %w", err)
		}
		return path, nil
	case o.DataDir != "":
		path, err := filepath.Abs(o.DataDir)
		if err != nil {
			return "", fmt.Errorf("--data-dir %q: %w", o.DataDir, err)
		}
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for data: %w; choose one with --data-dir", err)
	}
	return filepath.Join(cache, "tocsin"), nil
}

func (d *dataDir) acquire() error {
	lock, _, err := fileutil.Flock(d.dirs.lock())
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("data directory %s is in use by another tocsin up%s: end that one or choose another directory with --data-dir",
			d.dirs, d.holder())
	}
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	d.lock = lock
	// The file is written in place: the lock is on it.
	if err := os.WriteFile(d.dirs.lock(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return fmt.Errorf("lock data directory: %w", errors.Join(err, lock.Release()))
	}
	return nil
}

// holder names the process that has the lock, if it has written its number.
func (d *dataDir) holder() string {
	content, err := os.ReadFile(d.dirs.lock())
	pid := strings.TrimSpace(string(content))
	if err != nil || pid == "" {
		return ""
	}
	return " (process " + pid + ")"
}

// Close gives the directory free, and removes it if it is ephemeral.
func (d *dataDir) Close() error {
	var err error
	if d.remove {
		err = os.RemoveAll(string(d.dirs))
	}
	return errors.Join(err, d.lock.Release())
}

// prepare writes everything that processes read: certificate, gossip key,
// configuration and, if the user names none, the built-in rules.
func (d *dataDir) prepare(l layout) error {
	if err := ensureCertificate(d.dirs); err != nil {
		return err
	}
	if err := ensureGossipKey(d.gossipKey()); err != nil {
		return err
	}
	files, err := l.configFiles(d.dirs)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := writeFile(d.config(name), content); err != nil {
			return err
		}
	}
	if len(l.rules) == 0 {
		return writeDefaultRules(d.rules())
	}
	return nil
}

// writeDefaultRules replaces what is there, so that the rules are always
// those of this version.
func writeDefaultRules(dir string) error {
	builtin, err := fs.Sub(deploy.Rules, "rules")
	if err != nil {
		return fmt.Errorf("read built-in rules: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove old built-in rules: %w", err)
	}
	if err := os.CopyFS(dir, builtin); err != nil {
		return fmt.Errorf("write built-in rules: %w", err)
	}
	return nil
}

// ensureGossipKey keeps a valid key and makes one otherwise.
func ensureGossipKey(path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read gossip key: %w", err)
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(old))); err == nil && len(key) == gossipKeyBytes {
		return nil
	}
	key := make([]byte, gossipKeyBytes)
	rand.Read(key)
	return writeFile(path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
}

// writeFile replaces a file in one step and makes it readable by its owner
// alone.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
