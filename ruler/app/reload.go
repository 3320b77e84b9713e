package app

import (
	"context"
	"errors"
	"fmt"
	"reflect"
)

// reload reads the configuration and the rules again. What is at fault, or
// would need a restart, changes nothing.
func (a *app) reload(ctx context.Context) error {
	err := a.tryReload(ctx)
	if err != nil {
		a.reloaded.Set(0)
		return err
	}
	a.reloaded.Set(1)
	return nil
}

func (a *app) tryReload(ctx context.Context) error {
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
	return a.reloadRules(ctx)
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
		{"clusters", c.Clusters, next.Clusters},
		{"rule_files", c.RuleFiles, next.RuleFiles},
		{"rule_config_maps", c.RuleConfigMaps, next.RuleConfigMaps},
		{"global", c.Global, next.Global},
	} {
		if !reflect.DeepEqual(part.old, part.new) {
			return part.name
		}
	}
	return ""
}
