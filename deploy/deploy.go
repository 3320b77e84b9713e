// Package deploy holds what comes with Tocsin to run it: the custom resources,
// a chart and the manifests that are rendered from it, dashboards, and the rule
// set that watches Tocsin itself and the fleet that it evaluates rules for.
//
// It is data and has no behaviour. The files are the same ones that a user can
// apply or copy.
package deploy

import "embed"

// Rules has rule files under "rules", in formats that ruler/rule reads. They
// expect the job names collector, backend, rule-evaluator, alertmanager and
// node, and a label cluster on what is collected.
//
//go:embed rules
var Rules embed.FS

// Dashboards are for Grafana, below "dashboards". They expect the same job
// names.
//
//go:embed dashboards
var Dashboards embed.FS
