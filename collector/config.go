package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/prometheus/prometheus/config"

	"github.com/tocsin-rules/tocsin/collector/forward"
)

// CheckConfig says whether a collector would run the configuration as it is,
// and find the certificates for scraping where it looks for them. The error
// reports all faults at once.
func CheckConfig(s Source, terms Terms) error {
	terms.filesAreThere = true
	a, err := load(s, terms, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	errs := make([]error, 0, len(a.refused))
	for _, r := range a.refused {
		errs = append(errs, fmt.Errorf("scrape config %q: %w", r.Pool, r.Err))
	}
	return errors.Join(errs...)
}

// load reads the configuration that follows before, which is nil at first.
func load(s Source, terms Terms, before *assembly, logger *slog.Logger) (*assembly, error) {
	docs, err := s.Documents()
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", s, err)
	}
	a, err := assemble(docs, terms, before, logger)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", s, err)
	}
	return a, nil
}

// loadBase parses the base and checks it whole: the syntax, the files of scrape
// configurations that it names, and that every HTTP client it describes can be
// built, which for remote writes reads the certificates that it names.
func loadBase(docs Documents, terms Terms, logger *slog.Logger) (*config.Config, error) {
	conf, err := config.Load(string(docs.Base.Content), logger)
	if err != nil {
		return nil, err
	}
	conf.SetDirectory(docs.Directory)
	errs := append(unsupported(conf), ownDefaults(conf, docs.Base.Content))
	scrapes, err := conf.GetScrapeConfigs()
	errs = append(errs, err)
	for _, sc := range scrapes {
		if err := errors.Join(terms.impose(sc), terms.validate(sc)); err != nil {
			errs = append(errs, fmt.Errorf("scrape config %q: %w", sc.JobName, err))
		}
	}
	// What is in other files now is what runs, whatever becomes of the files.
	conf.ScrapeConfigs, conf.ScrapeConfigFiles = scrapes, nil
	return conf, errors.Join(append(errs, validateRemoteWrites(conf.RemoteWriteConfigs)...)...)
}

// unsupported are the sections that make no sense for a collector.
func unsupported(conf *config.Config) []error {
	var errs []error
	for _, section := range []struct {
		name string
		set  bool
	}{
		{"tracing", conf.TracingConfig.Endpoint != ""},
		{"alerting", len(conf.AlertingConfig.AlertmanagerConfigs)+len(conf.AlertingConfig.AlertRelabelConfigs) > 0},
		{"rule_files", len(conf.RuleFiles) > 0},
		{"remote_read", len(conf.RemoteReadConfigs) > 0},
	} {
		if section.set {
			errs = append(errs, fmt.Errorf("field %s is not supported by the collector", section.name))
		}
	}
	return errs
}

// validateRemoteWrites builds every client.
func validateRemoteWrites(writes []*config.RemoteWriteConfig) []error {
	var errs []error
	for i, w := range writes {
		if err := forward.Validate(w); err != nil {
			errs = append(errs, err)
		}
		for _, earlier := range writes[:i] {
			if reflect.DeepEqual(earlier, w) {
				errs = append(errs, fmt.Errorf("remote write to %q: configured twice in the same way, remove one", w.URL.Redacted()))
			}
		}
	}
	return errs
}
