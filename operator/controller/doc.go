// Package controller keeps the configuration of collectors, rule-evaluators and
// the managed Alertmanager as the custom resources say, and tells in the status
// of each resource what came of it.
//
// What configuration resources become is decided by operator/render; this
// package decides when to render, write and report. One resource is reconciled
// at a time: it is rendered alone, its piece is put into the parts, and the
// parts that changed are written shortly afterwards, many changes at once. A
// resource that can't be rendered keeps its last good piece and concerns no
// other. Secrets are read where a resource refers to them, and only the keys
// that are referred to are copied to where collectors and rule-evaluators read
// them.
//
// Only ConfigMaps, Secrets and the status of resources are written, and only
// if they differ from what they should be. Workloads are never touched. All
// reconcilers run on the leader only. Tests against a real API server are in
// test/kube.
package controller
