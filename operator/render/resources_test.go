package render

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler/app"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// testSettings are those of an operator in the cluster clu.
func testSettings() Settings {
	return Settings{
		SystemNamespace: "gmp-system", PublicNamespace: "gmp-public",
		ProjectID: "proj", Location: "loc", Cluster: "clu",
		Scope:          plan.Scope,
		CheckEvaluator: app.CheckConfig,
	}
}

// TestResources runs the scripts in testdata/resources. Input is manifests; an
// OperatorConfig among them is that which all others are rendered under.
//
//	render [nameless]      every resource: its text, or what is wrong with it
//	load                   rule groups, as the rule-evaluator reads them
//	collector, evaluator [port=N]   what comes of the OperatorConfig
//	alertmanager           the Alertmanager's configuration for that of a user
//
// An operator that is nameless does not know of which cluster it is.
func TestResources(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/resources", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "alertmanager" {
				return alertmanagerText(d)
			}
			settings := testSettings()
			if d.HasArg("nameless") {
				settings.ProjectID, settings.Location, settings.Cluster = "", "", ""
			}
			objects := manifests(t, d.Input)
			r := New(settings, operatorConfig(objects))
			var out strings.Builder
			switch d.Cmd {
			case "render":
				for _, o := range objects {
					renderText(&out, r, o)
				}
			case "load":
				for _, o := range objects {
					loadText(t, &out, r, o)
				}
			case "collector":
				configText(&out, func() (Config, error) { return r.Collector() })
				requireExternalLabels(t, r)
			case "evaluator":
				var port int32
				d.MaybeScanArgs(t, "port", &port)
				configText(&out, func() (Config, error) { return r.Evaluator(port) })
			default:
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			return out.String()
		})
	})
}

func alertmanagerText(d *datadriven.TestData) string {
	var content []byte
	if !d.HasArg("none") {
		content = []byte(d.Input)
	}
	text, err := Alertmanager(content)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return string(text)
}

func renderText(out *strings.Builder, r *Renderer, o any) {
	piece, err, ok := pieceOf(r, o)
	if !ok {
		return
	}
	if err != nil {
		fmt.Fprintf(out, "error: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nerror: "))
		return
	}
	fmt.Fprintf(out, "# %s\n%s", piece.Key, piece.Text)
	secretsText(out, piece.Secrets)
}

func secretsText(out *strings.Builder, keys []SecretKey) {
	for _, k := range keys {
		fmt.Fprintf(out, "needs %s\n", k)
	}
}

func configText(out *strings.Builder, render func() (Config, error)) {
	c, err := render()
	if err != nil {
		fmt.Fprintf(out, "error: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nerror: "))
		return
	}
	out.Write(c.Text)
	secretsText(out, c.Secrets)
	for _, w := range c.Warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
}

// requireExternalLabels makes sure that a collector has the external labels that
// were given, whatever is in its environment.
func requireExternalLabels(t *testing.T, r *Renderer) {
	c, err := r.Collector()
	if err != nil {
		return
	}
	cfg, err := config.Load(string(c.Text), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for name, value := range r.config.Collection.ExternalLabels {
		require.Equal(t, value, cfg.GlobalConfig.ExternalLabels.Get(name))
	}
}

func loadText(t *testing.T, out *strings.Builder, r *Renderer, o any) {
	piece, err, ok := pieceOf(r, o)
	if !ok {
		return
	}
	require.NoError(t, err)
	groups, errs := rule.Parse(piece.Key, piece.Text, rule.Options{Clusters: r.clusters(), Scope: plan.Scope})
	require.Empty(t, errs)
	for _, g := range groups {
		fmt.Fprintln(out, g)
	}
}

// pieceOf renders one resource; what is none is not ok.
func pieceOf(r *Renderer, o any) (p Piece, err error, ok bool) {
	ok = true
	switch o := o.(type) {
	case *v1.PodMonitoring:
		p, err = r.PodMonitoring(o)
	case *v1.ClusterPodMonitoring:
		p, err = r.ClusterPodMonitoring(o)
	case *v1.ClusterNodeMonitoring:
		p, err = r.ClusterNodeMonitoring(o)
	case *v1.Rules:
		p, err = r.Rules(o)
	case *v1.ClusterRules:
		p, err = r.ClusterRules(o)
	case *v1.GlobalRules:
		p, err = r.GlobalRules(o)
	default:
		ok = false
	}
	return p, err, ok
}

func operatorConfig(objects []any) *v1.OperatorConfig {
	for _, o := range objects {
		if oc, ok := o.(*v1.OperatorConfig); ok {
			return oc
		}
	}
	return nil
}

// manifests decodes resources, with the defaults of their schema.
func manifests(t testing.TB, text string) []any {
	t.Helper()
	kinds := map[string]func() any{
		"PodMonitoring":         func() any { return &v1.PodMonitoring{} },
		"ClusterPodMonitoring":  func() any { return &v1.ClusterPodMonitoring{} },
		"ClusterNodeMonitoring": func() any { return &v1.ClusterNodeMonitoring{} },
		"Rules":                 func() any { return &v1.Rules{} },
		"ClusterRules":          func() any { return &v1.ClusterRules{} },
		"GlobalRules":           func() any { return &v1.GlobalRules{} },
		"OperatorConfig":        func() any { return &v1.OperatorConfig{} },
	}
	var out []any
	reader := k8syaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		var meta metav1.TypeMeta
		require.NoError(t, k8syaml.Unmarshal(doc, &meta))
		require.Contains(t, kinds, meta.Kind)
		o := kinds[meta.Kind]()
		require.NoError(t, k8syaml.UnmarshalStrict(doc, o), "%s", doc)
		if !bytes.Contains(doc, []byte("metadata: null")) {
			setDefaults(o)
		}
		out = append(out, o)
	}
}

// setDefaults does what the API server does by the schema.
func setDefaults(o any) {
	switch o := o.(type) {
	case *v1.PodMonitoring:
		if o.Spec.TargetLabels.Metadata == nil {
			o.Spec.TargetLabels.Metadata = &[]string{"container", "pod", "top_level_controller_name", "top_level_controller_type"}
		}
	case *v1.ClusterPodMonitoring:
		if o.Spec.TargetLabels.Metadata == nil {
			o.Spec.TargetLabels.Metadata = &[]string{"container", "namespace", "pod", "top_level_controller_name", "top_level_controller_type"}
		}
	}
}
