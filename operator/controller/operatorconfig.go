package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

// configPeriod is how often what is made of the OperatorConfig is compared with
// what it should be; watches notice most changes before.
const configPeriod = time.Minute

// operatorConfigs reconciles the OperatorConfig, of which there is one or none.
type operatorConfigs struct {
	*configuration

	api    client.Reader
	logger *slog.Logger
	// credentials are those of rule-evaluators.
	credentials  *mirror
	alertmanager *alertmanager
	queue        queue
}

// request is the only one: whatever changes, all of it is looked at.
func (c *operatorConfigs) request() types.NamespacedName {
	return types.NamespacedName{Namespace: c.settings.PublicNamespace, Name: configName}
}

// Reconcile implements reconcile.Reconciler.
func (c *operatorConfigs) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	oc, err := operatorConfig(ctx, c.client, c.settings)
	if err != nil {
		return reconcile.Result{}, err
	}
	renderer, err := c.update(ctx, oc)
	if err != nil {
		return reconcile.Result{}, err
	}
	collection, errCollection := c.collection(ctx, renderer, oc)
	evaluation, errEvaluation := c.evaluation(ctx, renderer, oc)
	faultGossip, errGossip := c.gossipKey(ctx, oc)
	mail, errMail := c.alertmanager.reconcile(ctx, oc)
	findings := []finding{together(collection, evaluation, outcome{err: faultGossip}), mail}
	err = errors.Join(errCollection, errEvaluation, errGossip, errMail)
	if oc != nil {
		err = errors.Join(err, reportOn(ctx, c.client, oc, findings...))
	}
	return reconcile.Result{RequeueAfter: configPeriod}, err
}

// outcome is what came of rendering a configuration.
type outcome struct {
	err      error
	warnings []string
}

// together is what there is to say about all configuration.
func together(outcomes ...outcome) finding {
	var errs []error
	var warnings []string
	for _, o := range outcomes {
		errs = append(errs, o.err)
		warnings = append(warnings, o.warnings...)
	}
	f := findingOf(v1.ConfigurationCreateSuccess, reasonConfig, errors.Join(errs...))
	if f.ok && len(warnings) > 0 {
		f.reason, f.message = reasonWarning, shortened(strings.Join(warnings, "\n"))
	}
	return f
}

// collection writes what collectors have in common.
func (c *operatorConfigs) collection(ctx context.Context, r *render.Renderer, oc *v1.OperatorConfig) (outcome, error) {
	config, err := r.Collector()
	if err != nil {
		return outcome{err: err}, nil
	}
	c.scrape.share(config.Secrets)
	return outcome{err: c.secrets.readable(ctx, config.Secrets), warnings: config.Warnings}, c.write(ctx, config, "collector", oc)
}

// evaluation writes the configuration of rule-evaluators, and before it the
// credentials that it refers to.
func (c *operatorConfigs) evaluation(ctx context.Context, r *render.Renderer, oc *v1.OperatorConfig) (outcome, error) {
	if oc == nil {
		return outcome{}, nil // Nothing says where the data is.
	}
	port, err := c.alertmanager.port(ctx)
	if err != nil {
		return outcome{}, err
	}
	config, err := r.Evaluator(port)
	if err != nil {
		return outcome{err: err}, nil
	}
	if err := c.credentials.sync(ctx, config.Secrets); err != nil {
		return outcome{}, err
	}
	return outcome{err: c.secrets.readable(ctx, config.Secrets), warnings: config.Warnings}, c.write(ctx, config, "rule-evaluator", oc)
}

func (c *operatorConfigs) write(ctx context.Context, config render.Config, name string, oc *v1.OperatorConfig) error {
	gzip := name == "collector" && oc != nil && oc.Features.Config.Compression == v1.CompressionGzip
	want := config.ConfigMap(c.settings.SystemNamespace, name, gzip)
	var got corev1.ConfigMap
	err := c.client.Get(ctx, client.ObjectKeyFromObject(want), &got)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err == nil && render.SameConfigMap(want, &got) {
		return nil
	}
	if err := replace(ctx, c.client, want); err != nil {
		return fmt.Errorf("write ConfigMap %s: %w", name, err)
	}
	c.logger.Info("configuration written", "configmap", name)
	return nil
}
