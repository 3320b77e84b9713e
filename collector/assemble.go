package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v2"
)

// ConfigError is why a scrape config does not run as it is configured.
type ConfigError struct {
	// Pool is its job_name, empty if a whole document is at fault.
	Pool string
	Err  error
}

func sameErrors(a, b []ConfigError) bool {
	return slices.EqualFunc(a, b, func(x, y ConfigError) bool { return x.Pool == y.Pool && x.Err.Error() == y.Err.Error() })
}

// assembly is a configuration made of documents.
type assembly struct {
	*config.Config

	terms    Terms
	document map[string]string // that a scrape config is from, by job
	refused  []ConfigError
}

// assemble makes one configuration of documents. A fault of the base is an
// error, which reports all faults at once. A scrape config of a part that is at
// fault is refused alone: it stays as it was before, or is left out.
func assemble(docs Documents, terms Terms, before *assembly, logger *slog.Logger) (*assembly, error) {
	base, err := loadBase(docs, terms, logger)
	if err != nil {
		return nil, err
	}
	a := &assembly{Config: base, terms: terms, document: map[string]string{}}
	for _, sc := range base.ScrapeConfigs {
		a.document[sc.JobName] = docs.Base.Name
	}
	for _, part := range docs.Parts {
		a.addPart(part, before)
	}
	return a, nil
}

func (a *assembly) addPart(part Document, before *assembly) {
	var form struct {
		ScrapeConfigs []candidate `yaml:"scrape_configs"`
	}
	if err := yaml.UnmarshalStrict(part.Content, &form); err != nil {
		a.refused = append(a.refused, ConfigError{Err: fmt.Errorf("%s: %w", part.Name, err)})
		a.keep(before, func(job string) bool { return before.document[job] == part.Name })
		return
	}
	for _, c := range form.ScrapeConfigs {
		if err := a.add(c, part.Name); err != nil {
			a.refused = append(a.refused, ConfigError{Pool: c.job, Err: fmt.Errorf("%s: %w", part.Name, err)})
			a.keep(before, func(job string) bool { return job == c.job })
		}
	}
}

func (a *assembly) add(c candidate, document string) error {
	if c.err != nil {
		return c.err
	}
	if err := c.config.Validate(a.GlobalConfig); err != nil {
		return err
	}
	if err := errors.Join(a.terms.impose(c.config), a.terms.validate(c.config)); err != nil {
		return err
	}
	if other, known := a.document[c.job]; known {
		if a.has(c.config) {
			return nil // While a job moves from one document to another, both may have it.
		}
		return fmt.Errorf("another scrape config of this job_name is in %s", other)
	}
	a.document[c.job] = document
	a.ScrapeConfigs = append(a.ScrapeConfigs, c.config)
	return nil
}

func (a *assembly) has(sc *config.ScrapeConfig) bool {
	for _, other := range a.ScrapeConfigs {
		if reflect.DeepEqual(other, sc) {
			return true
		}
	}
	return false
}

// keep takes over scrape configs that ran before.
func (a *assembly) keep(before *assembly, which func(job string) bool) {
	if before == nil {
		return
	}
	for _, sc := range before.ScrapeConfigs {
		if _, known := a.document[sc.JobName]; !known && which(sc.JobName) {
			a.document[sc.JobName] = before.document[sc.JobName]
			a.ScrapeConfigs = append(a.ScrapeConfigs, sc)
		}
	}
}

// candidate is a scrape config whose faults do not spoil its neighbours.
type candidate struct {
	job    string
	config *config.ScrapeConfig
	err    error
}

// UnmarshalYAML has the error of what is no scrape config at all; all others
// stay with the candidate.
func (c *candidate) UnmarshalYAML(unmarshal func(any) error) error {
	var head struct {
		JobName string         `yaml:"job_name"`
		Rest    map[string]any `yaml:",inline"`
	}
	if err := unmarshal(&head); err != nil {
		return err
	}
	c.job, c.config = head.JobName, &config.ScrapeConfig{}
	c.err = unmarshal(c.config)
	return nil
}
