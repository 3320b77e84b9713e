// Package collector is the command line of the collector, apart from those of
// the other programs so that its program links nothing of theirs.
package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/collector/app"
	"github.com/tocsin-rules/tocsin/collector/discovery"
	"github.com/tocsin-rules/tocsin/collector/wal"
)

// Run runs the collector program and returns its exit status.
func Run(args []string, s command.Streams) int {
	discovery.Register()
	p := command.New("collector", "Scrapes targets and writes to a backend.", s)
	p.Add("", Flags(p.App))
	return p.Run(args)
}

// Flags are those of a collector, which the process runs by.
func Flags(f command.Flagger) command.Process {
	var o app.Options
	f.Flag("config.file", "Configuration in Prometheus' format.").Default("collector.yml").StringVar(&o.ConfigFile)
	f.Flag("config.map-selector", "Label selector of ConfigMaps that hold the configuration, in place of --config.file: the base under the key config.yaml of one, "+
		"more scrape configs under the keys scrape.yaml.").PlaceHolder("LABEL=VALUE").StringVar(&o.ConfigMaps.LabelSelector)
	f.Flag("config.map-namespace", "Namespace of these ConfigMaps. Default: that of the pod.").StringVar(&o.ConfigMaps.Namespace)
	check := f.Flag("check-config", "Check the configuration, say what is wrong with it, and end.").Bool()
	f.Flag("node.name", "Node that this collector runs on, for $(NODE_NAME) in selectors of kubernetes_sd_configs.").Envar("NODE_NAME").StringVar(&o.Terms.Node)
	f.Flag("kubeconfig", "How to reach the Kubernetes API. Default: as a pod does, by its service account.").StringVar(&o.Terms.Kubeconfig)
	f.Flag("scrape.body-size-limit", "How large an answer of a target may be, uncompressed, where its scrape config has no body_size_limit; 0 is no limit.").
		Default("128MiB").BytesVar(&o.Terms.BodySizeLimit)
	f.Flag("scrape.sample-limit", "How many samples an answer of a target may have where its scrape config has no sample_limit; 0 is no limit.").
		Default("500000").UintVar(&o.Terms.SampleLimit)
	f.Flag("storage.path", "Directory of the write-ahead log.").Default("data/collector").StringVar(&o.StoragePath)
	ratio := f.Flag("auto-gomemlimit.ratio", "Part of the container's memory limit that the Go runtime tries to stay within, unless GOMEMLIMIT is set; 0 is no such limit.").
		Default("0.9").Float64()
	var size units.Base2Bytes
	age := model.Duration(4 * time.Hour)
	f.Flag("storage.max-size", "Size of the write-ahead log above which the oldest samples are dropped, sent or not.").Default("1GiB").BytesVar(&size)
	f.Flag("storage.max-age", "Age at which samples are dropped from the write-ahead log, sent or not.").Default(age.String()).SetValue(&age)
	command.WebFlags(f, &o.HTTP, "0.0.0.0:19120")
	return func(ctx context.Context, logger *slog.Logger) error {
		if *check {
			return app.CheckConfig(ctx, o)
		}
		if err := limitMemory(*ratio, logger); err != nil {
			return err
		}
		o.Limits = wal.Options{MaxSize: int64(size), MaxAge: time.Duration(age)}
		return app.Run(ctx, o, logger)
	}
}

// limitMemory makes the garbage collector work harder before the container is
// killed. Outside of a container there is no limit.
func limitMemory(ratio float64, logger *slog.Logger) error {
	if ratio < 0 || ratio > 1 {
		return fmt.Errorf("--auto-gomemlimit.ratio %v: must be from 0 to 1", ratio)
	}
	if ratio == 0 {
		return nil
	}
	_, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(ratio), memlimit.WithProvider(memlimit.FromCgroup))
	if errors.Is(err, memlimit.ErrNoLimit) || errors.Is(err, memlimit.ErrNoCgroup) || errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		return nil
	}
	if err != nil {
		logger.Warn("the container's memory limit is not known", "err", err)
	}
	return nil
}
