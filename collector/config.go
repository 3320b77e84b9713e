package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/config"
	promdiscovery "github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/tocsin-rules/tocsin/collector/discovery"
)

// LoadConfig reads the configuration file, as Prometheus' agent mode accepts
// it, and checks it whole: the syntax, the files of scrape configurations that
// it names, and that every HTTP client it describes can be built, which reads
// the certificates that it names. The error reports all faults at once.
func LoadConfig(c Config, logger *slog.Logger) (*config.Config, error) {
	conf, err := config.LoadFile(c.ConfigFile, true, logger)
	if err != nil {
		return nil, fmt.Errorf("load configuration file %q: %w", c.ConfigFile, err)
	}
	if err := errors.Join(place(conf, c), validate(conf)); err != nil {
		return nil, fmt.Errorf("check configuration file %q: %w", c.ConfigFile, err)
	}
	return conf, nil
}

// place tells what discovers targets in Kubernetes where the collector runs.
func place(conf *config.Config, c Config) error {
	// Faults of theirs are reported by validate.
	scrapes, _ := conf.GetScrapeConfigs()
	var errs []error
	for _, sc := range scrapes {
		for _, sd := range sc.ServiceDiscoveryConfigs {
			if err := placeOne(sd, c); err != nil {
				errs = append(errs, fmt.Errorf("scrape config %q: %w", sc.JobName, err))
			}
		}
	}
	return errors.Join(errs...)
}

func placeOne(sd promdiscovery.Config, c Config) error {
	k, ok := sd.(*discovery.Config)
	switch {
	case ok:
		return k.Place(c.Node, c.Kubeconfig)
	case sd.Name() == k.Name():
		return errors.New("kubernetes_sd_configs are understood by the program collector alone")
	}
	return nil
}

func validate(conf *config.Config) error {
	var errs []error
	if conf.TracingConfig.Endpoint != "" {
		errs = append(errs, errors.New("field tracing is not supported by the collector"))
	}
	scrapes, err := conf.GetScrapeConfigs()
	if err != nil {
		errs = append(errs, err)
	}
	for _, sc := range scrapes {
		if _, err := commonconfig.NewClientFromConfig(sc.HTTPClientConfig, sc.JobName); err != nil {
			errs = append(errs, fmt.Errorf("scrape config %q: %w", sc.JobName, err))
		}
	}
	return errors.Join(append(errs, validateRemoteWrites(conf.RemoteWriteConfigs)...)...)
}

// validateRemoteWrites builds every client, because remote.Storage cannot go
// back to its queues when it meets a faulty one half-way.
func validateRemoteWrites(writes []*config.RemoteWriteConfig) []error {
	var errs []error
	for i, w := range writes {
		if _, err := remote.NewWriteClient(w.Name, clientConfig(w)); err != nil {
			errs = append(errs, fmt.Errorf("remote write to %q: %w", w.URL.Redacted(), err))
		}
		for _, earlier := range writes[:i] {
			if reflect.DeepEqual(earlier, w) {
				errs = append(errs, fmt.Errorf("remote write to %q: configured twice in the same way, remove one", w.URL.Redacted()))
			}
		}
	}
	return errs
}

func clientConfig(w *config.RemoteWriteConfig) *remote.ClientConfig {
	return &remote.ClientConfig{
		URL:              w.URL,
		WriteProtoMsg:    w.ProtobufMessage,
		Timeout:          w.RemoteTimeout,
		HTTPClientConfig: w.HTTPClientConfig,
		SigV4Config:      w.SigV4Config,
		AzureADConfig:    w.AzureADConfig,
		GoogleIAMConfig:  w.GoogleIAMConfig,
		Headers:          w.Headers,
		RetryOnRateLimit: w.QueueConfig.RetryOnRateLimit,
		RoundRobinDNS:    w.RoundRobinDNS,
	}
}
