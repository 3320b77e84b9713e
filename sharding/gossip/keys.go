package gossip

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	keyReloadInterval = 5 * time.Second
	maxKeys           = 16
	maxKeyFileBytes   = 16 << 10
)

// keys keeps the keyring as the key file has it.
type keys struct {
	file    string
	metrics *metrics
	logger  *slog.Logger
	ring    *memberlist.Keyring // nil without encryption
	loaded  []byte
}

// load reads the keys for the first time.
func (k *keys) load() error {
	if k.file == "" {
		return nil
	}
	text, wanted, err := k.read()
	if err != nil {
		return err
	}
	ring, err := memberlist.NewKeyring(wanted, wanted[0])
	if err != nil {
		return fmt.Errorf("use gossip key file %q: %w", k.file, err)
	}
	k.ring, k.loaded = ring, text
	return nil
}

// keepLoaded takes over changes of the file. Its contents are compared, as
// modification times say little where files are swapped by links.
func (k *keys) keepLoaded(ctx context.Context) {
	if k.ring == nil {
		return
	}
	t := time.NewTicker(keyReloadInterval)
	defer t.Stop()
	lastErr := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		switch changed, err := k.reload(); {
		case err != nil:
			k.metrics.keyReloads.WithLabelValues("failure").Inc()
			if text := err.Error(); text != lastErr {
				k.logger.Error("gossip keys not reloaded, the last good ones stay", "err", err)
				lastErr = text
			}
		case changed:
			k.metrics.keyReloads.WithLabelValues("success").Inc()
			k.logger.Info("gossip keys reloaded")
			lastErr = ""
		}
	}
}

func (k *keys) reload() (changed bool, err error) {
	text, wanted, err := k.read()
	if err != nil || bytes.Equal(text, k.loaded) {
		return false, err
	}
	if err := install(k.ring, wanted); err != nil {
		return false, fmt.Errorf("use gossip key file %q: %w", k.file, err)
	}
	k.loaded = text
	return true, nil
}

// install makes the ring hold the wanted keys, the first one as the primary.
// The ring hands its slice to readers without a copy and RemoveKey shifts it in
// place, unless it removes the last key: hence all wanted keys are moved to the
// front, in reverse, and the others taken off the end.
func install(ring *memberlist.Keyring, wanted [][]byte) error {
	for _, key := range wanted {
		if err := ring.AddKey(key); err != nil {
			return err
		}
	}
	for _, key := range slices.Backward(wanted) {
		if err := ring.UseKey(key); err != nil {
			return err
		}
	}
	for all := ring.GetKeys(); len(all) > len(wanted); all = ring.GetKeys() {
		if err := ring.RemoveKey(all[len(all)-1]); err != nil {
			return err
		}
	}
	return nil
}

func (k *keys) read() (text []byte, wanted [][]byte, err error) {
	if text, err = readBounded(k.file, maxKeyFileBytes); err != nil {
		return nil, nil, fmt.Errorf("gossip key file: %w", err)
	}
	wanted, err = parseKeys(string(text))
	if err != nil {
		return nil, nil, fmt.Errorf("gossip key file %q: %w", k.file, err)
	}
	return text, wanted, nil
}

// parseKeys reads one key an entry, without repeats. Errors don't show what an
// entry holds.
func parseKeys(text string) ([][]byte, error) {
	var wanted [][]byte
	for i, entry := range entries(text) {
		key, err := base64.StdEncoding.DecodeString(entry)
		if err != nil {
			return nil, fmt.Errorf("key %d is not base64", i+1)
		}
		if err := memberlist.ValidateKey(key); err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		if !slices.ContainsFunc(wanted, func(w []byte) bool { return bytes.Equal(w, key) }) {
			wanted = append(wanted, key)
		}
	}
	if len(wanted) == 0 || len(wanted) > maxKeys {
		return nil, fmt.Errorf("%d keys: must be 1 to %d", len(wanted), maxKeys)
	}
	return wanted, nil
}
