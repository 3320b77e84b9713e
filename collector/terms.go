package collector

import (
	"errors"

	"github.com/alecthomas/units"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/config"
	promdiscovery "github.com/prometheus/prometheus/discovery"

	"github.com/tocsin-rules/tocsin/collector/discovery"
)

// Terms are what a process lays down for every scrape config.
type Terms struct {
	// Node is the name of the Kubernetes node that the collector runs on, empty
	// outside of Kubernetes.
	Node string
	// Kubeconfig is how to reach the API where a scrape config does not say,
	// empty to do as a pod does.
	Kubeconfig string
	// BodySizeLimit and SampleLimit are for scrape configs that have none of
	// their own, so that no target can fill the memory; 0 is no limit.
	BodySizeLimit units.Base2Bytes
	SampleLimit   uint

	// filesAreThere makes a certificate that can't be read a fault of the
	// scrape config. Otherwise it is one of the scrape.
	filesAreThere bool
}

// Limits for the labels of scrape configs that have none of their own.
const (
	labelLimit            = 1000
	labelNameLengthLimit  = 4 << 10
	labelValueLengthLimit = 64 << 10
)

// impose makes the terms those of a scrape config that was validated.
func (t Terms) impose(sc *config.ScrapeConfig) error {
	orElse(&sc.BodySizeLimit, t.BodySizeLimit)
	orElse(&sc.SampleLimit, t.SampleLimit)
	orElse(&sc.LabelLimit, labelLimit)
	orElse(&sc.LabelNameLengthLimit, labelNameLengthLimit)
	orElse(&sc.LabelValueLengthLimit, labelValueLengthLimit)
	if hasSecretHeaders(sc.HTTPClientConfig.HTTPHeaders) {
		// The client would send them wherever it is redirected to, other than
		// all other credentials.
		sc.HTTPClientConfig.FollowRedirects = false
	}
	errs := make([]error, 0, len(sc.ServiceDiscoveryConfigs))
	for _, sd := range sc.ServiceDiscoveryConfigs {
		errs = append(errs, t.place(sd))
	}
	return errors.Join(errs...)
}

// validate builds the client of a scrape config.
func (t Terms) validate(sc *config.ScrapeConfig) error {
	settings := sc.HTTPClientConfig
	if !t.filesAreThere {
		settings.TLSConfig = withoutFiles(settings.TLSConfig)
	}
	_, err := commonconfig.NewClientFromConfig(settings, sc.JobName)
	return err
}

func hasSecretHeaders(headers *commonconfig.Headers) bool {
	if headers == nil {
		return false
	}
	for _, h := range headers.Headers {
		if len(h.Secrets)+len(h.Files) > 0 {
			return true
		}
	}
	return false
}

// orElse sets what is not set.
func orElse[T comparable](setting *T, otherwise T) {
	var unset T
	if *setting == unset {
		*setting = otherwise
	}
}

// place tells what discovers targets in Kubernetes where the collector runs.
func (t Terms) place(sd promdiscovery.Config) error {
	k, ok := sd.(*discovery.Config)
	switch {
	case ok:
		return k.Place(t.Node, t.Kubeconfig)
	case sd.Name() == k.Name():
		return errors.New("kubernetes_sd_configs are understood by the program collector alone")
	}
	return nil
}
