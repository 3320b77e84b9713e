package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	apiv1 "github.com/tocsin-rules/tocsin/api/v1"
)

const manifests = "testdata/kubernetes/"

// TestCustomResourcesBecomeSeriesAndAlerts is what a user sees who installs
// deploy/ and writes custom resources and nothing else.
func TestCustomResourcesBecomeSeriesAndAlerts(t *testing.T) {
	t.Parallel()
	in := install(t)
	in.apply(manifests + "shop.yaml")
	in.apply(manifests + "configuration.yaml")
	in.apply(manifests + "appendix.yaml")
	in.apply(manifests + "fast.yaml")
	in.runShop("shop", "s3cret", 3)

	in.waitSeries(3, `up{job="fast"} == 1`)
	requireShopLabels(t, in.waitSeries(3, `up{job="api"} == 1`))
	recorded := in.waitSeries(1, `shop:errors:sum > 0`)
	require.Equal(t, `shop:errors:sum{cluster="clu", location="loc", namespace="shop", project_id="proj"}`, recorded[0].Metric.String())
	require.Equal(t, map[string]string{
		"alertname": "ShopErrors", "cluster": "clu", "location": "loc", "namespace": "shop", "project_id": "proj",
	}, in.waitNotified("firing", "ShopErrors"))
	in.waitConfigured("PodMonitoring", "fast")
	in.waitConfigured("PodMonitoring", "api")
	in.waitConfigured("Rules", "fast")
	in.waitConfigured("Rules", "slo")
	in.requireMetricsExist()

	in.remove(manifests + "fast.yaml")
	// As in Prometheus, the series of a job that is gone end with the lookback.
	in.waitSeries(0, `count_over_time(up{job="fast"}[10s])`)
	in.waitSeries(0, `shop:errors:sum`)
	in.waitNotified("resolved", "ShopErrors")
	in.waitSeries(3, `up{job="api"} == 1`)

	// The example scrapes and evaluates at the pace that it says.
	ratio := in.waitSeries(1, `shop:err:ratio5m`)
	require.Equal(t, model.LabelValue("gold"), ratio[0].Metric["tier"])
	require.Equal(t, model.LabelValue("shop"), ratio[0].Metric["namespace"])
	require.InDelta(t, 0.2, float64(ratio[0].Value), 0.01, "two errors in ten requests")
	in.waitSeries(1, `ALERTS{alertname="Burn",alertstate="pending",cluster="clu",location="loc",namespace="shop",project_id="proj"}`)
}

// requireShopLabels compares with the labels of the managed service.
func requireShopLabels(t *testing.T, up model.Vector) {
	t.Helper()
	for _, s := range up {
		pod := s.Metric["pod"]
		require.True(t, strings.HasPrefix(string(pod), "api-"), pod)
		require.Equal(t, model.Metric{
			"__name__": "up", "project_id": "proj", "location": "loc", "cluster": "clu", "namespace": "shop",
			"job": "api", "instance": pod + ":web", "pod": pod, "container": "server", "team": "checkout",
			"top_level_controller_name": "api", "top_level_controller_type": "Deployment",
		}, s.Metric)
	}
}

// waitConfigured waits until a resource of the shop says that the collectors or
// rule-evaluators have it as it is.
func (in *installation) waitConfigured(kind, name string) {
	in.t.Helper()
	eventually(in.t, func() error {
		var object struct {
			Metadata struct{ Generation int64 }
			Status   apiv1.MonitoringStatus
		}
		if err := in.get(kind, "shop", name, &object); err != nil {
			return err
		}
		for _, c := range object.Status.Conditions {
			if c.Type == apiv1.ConfigurationCreateSuccess && c.Status == "True" && object.Status.ObservedGeneration == object.Metadata.Generation {
				return nil
			}
		}
		return fmt.Errorf("generation %d of %s %s: %+v", object.Metadata.Generation, kind, name, object.Status)
	})
}
