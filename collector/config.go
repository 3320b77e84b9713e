package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote"
)

// LoadConfig reads a configuration file in Prometheus' format, as its agent
// mode accepts it, and checks it whole: the syntax, the files of scrape
// configurations that it names, and that every HTTP client it describes can be
// built, which reads the certificates that it names. The error reports all
// faults at once.
func LoadConfig(file string, logger *slog.Logger) (*config.Config, error) {
	conf, err := config.LoadFile(file, true, logger)
	if err != nil {
		return nil, fmt.Errorf("load configuration file %q: %w", file, err)
	}
	if err := validate(conf); err != nil {
		return nil, fmt.Errorf("check configuration file %q: %w", file, err)
	}
	return conf, nil
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
