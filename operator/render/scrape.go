package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// nodeName stands for the name of the collector's own node. Collectors fill it
// in where it is the selector of a discovery, and nowhere else.
const nodeName = "$(NODE_NAME)"

// endpoint is what endpoints of pods and of nodes have in common.
type endpoint struct {
	// field is where it is in the resource: "spec.endpoints[0].".
	field             string
	scheme, path      string
	params            map[string][]string
	interval, timeout string
	relabeling        []v1.RelabelingRule
	samples           v1.SampleOptions
	client            v1.HTTPClientConfig
}

// scrapeJob completes a job with limits by everything but its targets.
func scrapeJob(job config.ScrapeConfig, e endpoint, creds *credentials) (*config.ScrapeConfig, error) {
	job.HonorTimestamps = isTrue(e.samples.HonorTimestamps)
	job.Params = e.params
	job.ScrapeNativeHistograms = e.samples.ScrapeNativeHistograms
	job.AlwaysScrapeClassicHistograms = e.samples.ScrapeClassicHistograms
	job.ConvertClassicHistogramsToNHCB = e.samples.ConvertClassicHistogramsToNHCB
	job.MetricsPath = pathOf(e.path)
	job.Scheme = e.scheme
	job.EnableCompression = true
	job.HTTPClientConfig = creds.client(e.field, e.client)
	var errScheme, errIntervals, errRules error
	if !slices.Contains([]string{"", "http", "https"}, e.scheme) {
		errScheme = fmt.Errorf("%sscheme: %q is neither http nor https", e.field, e.scheme)
	}
	job.ScrapeInterval, job.ScrapeTimeout, errIntervals = intervals(e)
	job.MetricRelabelConfigs, errRules = metricRelabeling(e.field, e.relabeling)
	return &job, errors.Join(errScheme, errIntervals, errRules)
}

func isTrue(b *bool) bool { return b != nil && *b }

// pathOf is the path as it is requested, which begins with a slash.
func pathOf(path string) string {
	if path == "" {
		return config.DefaultScrapeConfig.MetricsPath
	}
	return "/" + strings.TrimPrefix(path, "/")
}

// intervals parses the interval and the timeout, which by default is as long.
func intervals(e endpoint) (interval, timeout model.Duration, err error) {
	if interval, err = duration(e.field+"interval", e.interval); err != nil {
		return 0, 0, err
	}
	if e.timeout == "" {
		return interval, interval, nil
	}
	if timeout, err = duration(e.field+"timeout", e.timeout); err != nil {
		return 0, 0, err
	}
	if timeout > interval {
		return 0, 0, fmt.Errorf("%stimeout: scrape timeout (%s) must not be greater than scrape interval (%s)", e.field, timeout, interval)
	}
	return interval, timeout, nil
}

func duration(field, text string) (model.Duration, error) {
	d, err := model.ParseDuration(text)
	if err == nil && d == 0 {
		err = errors.New("must be more than 0")
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", field, err)
	}
	return d, nil
}

// limited is a job of which there are only the limits.
func limited(in *v1.ScrapeLimits) (job config.ScrapeConfig, err error) {
	if in == nil {
		return job, nil
	}
	job.SampleLimit = uint(in.Samples)
	job.LabelLimit = uint(in.Labels)
	job.LabelNameLengthLimit = uint(in.LabelNameLength)
	job.LabelValueLengthLimit = uint(in.LabelValueLength)
	job.TargetLimit = uint(in.Targets)
	job.NativeHistogramBucketLimit = uint(in.NativeHistogramBuckets)
	job.BodySizeLimit, err = size("spec.limits.bodySize", in.BodySize)
	return job, err
}

// size parses a number of bytes; nothing is 0.
func size(field, text string) (units.Base2Bytes, error) {
	if text == "" {
		return 0, nil
	}
	n, err := units.ParseBase2Bytes(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not a size as 512KiB", field, text)
	}
	return n, nil
}

// onNode discovers what is on the collector's own node. It is the same for all
// jobs with that role, so that they share one watch.
func onNode(role kubernetes.Role, field string) discovery.Configs {
	sd := kubernetes.DefaultSDConfig
	sd.Role = role
	sd.Selectors = []kubernetes.SelectorConfig{{Role: role, Field: field + "=" + nodeName}}
	return discovery.Configs{&sd}
}

// scrapePiece writes the jobs of one resource, as Prometheus' loader takes them.
func scrapePiece(key string, jobs []*config.ScrapeConfig, secrets []SecretKey) (Piece, error) {
	text, err := yaml.Marshal(jobs)
	if err != nil {
		return Piece{}, err
	}
	if _, err := config.Load(scrapeHeader+string(text), nil); err != nil {
		return Piece{}, fmt.Errorf("the scrape configuration is not valid: %w", err)
	}
	return Piece{Key: key, Text: text, Secrets: sortedSecrets(secrets)}, nil
}

// placeRules set the labels of the cluster on every target.
func (r *Renderer) placeRules() []*relabel.Config {
	var rules []*relabel.Config
	for _, name := range []string{projectLabel, locationLabel, clusterLabel} {
		if value := r.place.Get(name); value != "" {
			rules = append(rules, setLabel(name, value))
		}
	}
	return rules
}
