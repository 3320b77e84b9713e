// Package operator is the command line of the operator, apart from those of the
// other programs so that these don't link controllers.
package operator

import (
	"context"
	"log/slog"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/operator/app"
	ruler "github.com/tocsin-rules/tocsin/ruler/app"
)

// Run runs the operator program and returns its exit status.
func Run(args []string, s command.Streams) int {
	p := command.New("operator", "Turns custom resources into the configuration of collectors, rule-evaluators and Alertmanager.", s)
	p.Add("", Flags(p.App))
	return p.Run(args)
}

// Flags are those of an operator, which the process runs by.
func Flags(f command.Flagger) command.Process {
	var o app.Options
	f.Flag("operator.namespace", "Namespace of the operator and of all that it configures.").Default("gmp-system").StringVar(&o.Render.SystemNamespace)
	f.Flag("public.namespace", "Namespace of the OperatorConfig and of the Secrets that it refers to.").Default("gmp-public").StringVar(&o.Render.PublicNamespace)
	f.Flag("cluster", "Name of this cluster, as label cluster, unless the OperatorConfig has another.").StringVar(&o.Render.Cluster)
	f.Flag("location", "Where this cluster is, as label location, unless the OperatorConfig has another.").StringVar(&o.Render.Location)
	f.Flag("project-id", "Project of this cluster, as label project_id, unless the OperatorConfig has another.").StringVar(&o.Render.ProjectID)
	f.Flag("kubeconfig", "How to reach the Kubernetes API. Default: as a pod does, by its service account.").StringVar(&o.Kubeconfig)
	f.Flag("leader-election", "Reconcile only while leading all operators of this namespace.").Default("true").BoolVar(&o.LeaderElection)
	f.Flag("web.webhook-address", "Address for the checks of rules that the API server asks for, over TLS with a certificate that the operator makes; empty means none.").
		Default("0.0.0.0:10250").StringVar(&o.WebhookAddress)
	f.Flag("web.probe-address", "Address for the probes /healthz and /readyz, in plaintext.").Default("0.0.0.0:18081").StringVar(&o.ProbeAddress)
	command.WebFlags(f, &o.HTTP, "0.0.0.0:18080")
	return func(ctx context.Context, logger *slog.Logger) error {
		// The operator's checks are those of what reads its output.
		o.Render.Scope, o.Render.CheckEvaluator = plan.Scope, ruler.CheckConfig
		app.SetLoggers(logger)
		return app.Run(ctx, o, logger)
	}
}
