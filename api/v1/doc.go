// Package v1 holds the Go types of the custom resources in
// monitoring.googleapis.com/v1. They are the schema: the
// CustomResourceDefinitions in deploy/crds and the deep copies are generated
// from their fields, comments and markers ("make generate").
//
// The types take every manifest that Google's managed collection takes; fields
// beyond those are optional and named as in Prometheus and its operator. The
// package decides nothing and reads nothing: how resources become
// configuration is up to operator/render. What the schema refuses is shown by
// the scripts in test/kube/testdata/crds.
//
// +kubebuilder:object:generate=true
// +groupName=monitoring.googleapis.com
package v1
