package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/tocsin-rules/tocsin/ruler/source"
)

// configPoll is how often the configuration file is looked at. Polling sees what
// has no notification, as the symbolic links of a mounted ConfigMap.
const configPoll = 5 * time.Second

// reload reads the configuration and the rules again. What is at fault, or
// would need a restart, changes nothing; the fault of the configuration is shown
// until a reload succeeds.
func (a *app) reload(ctx context.Context) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	err := a.reloadConfig()
	a.state.configured(err)
	if err == nil {
		err = a.reloadRules(ctx)
	}
	if err != nil {
		a.reloaded.Set(0)
		return err
	}
	a.reloaded.Set(1)
	a.reloadedAt.SetToCurrentTime()
	return nil
}

func (a *app) reloadConfig() error {
	cfg, err := LoadConfig(a.opts.ConfigFile)
	if err != nil {
		return err
	}
	if what := a.cfg.needsRestart(cfg); what != "" {
		return fmt.Errorf("configuration file %q: a change of %s needs a restart", a.opts.ConfigFile, what)
	}
	if err := a.applyAlerting(cfg); err != nil {
		return fmt.Errorf("configuration file %q: %w", a.opts.ConfigFile, err)
	}
	return nil
}

// reloadOnChange reloads when the content of the configuration file is another
// than that which loaded is the fingerprint of.
func (a *app) reloadOnChange(ctx context.Context, loaded [sha256.Size]byte) error {
	ticker := time.NewTicker(configPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if now := fingerprint(a.opts.ConfigFile); now != loaded {
				loaded = now
				a.logger.Info("the configuration file has changed")
				a.reloadAndLog(ctx)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *app) reloadAndLog(ctx context.Context) {
	if err := a.reload(ctx); err != nil {
		a.logger.Error("reloading the configuration", "err", err)
	}
}

// fingerprint is that of a file's content, zero if it can't be read.
func fingerprint(file string) (sum [sha256.Size]byte) {
	content, err := source.ReadFile(file, maxConfigBytes)
	if err != nil {
		return sum
	}
	return sha256.Sum256(content)
}

// reloadRules looks at all rule files now. Those that are at fault keep their
// last good version, the others take effect.
func (a *app) reloadRules(ctx context.Context) error {
	snapshot, err := a.loader.Load(ctx)
	if err != nil {
		return err
	}
	a.loader.Reload()
	errs := make([]error, len(snapshot.Errors))
	for i, e := range snapshot.Errors {
		errs[i] = fmt.Errorf("rule file %q: %w", e.File, e.Err)
	}
	return errors.Join(errs...)
}

// needsRestart names what differs from the running configuration and cannot
// change while it runs; empty if nothing does.
func (c *Config) needsRestart(next *Config) string {
	for _, part := range []struct {
		name     string
		old, new any
	}{
		{"backends", c.Backends, next.Backends},
		{"limits", c.Limits, next.Limits},
		{"clusters", c.Clusters, next.Clusters},
		{"rule_files", c.RuleFiles, next.RuleFiles},
		{"rule_config_maps", c.RuleConfigMaps, next.RuleConfigMaps},
		{"global", c.Global, next.Global},
		{"collectors", c.Collectors, next.Collectors},
	} {
		if !reflect.DeepEqual(part.old, part.new) {
			return part.name
		}
	}
	return ""
}
