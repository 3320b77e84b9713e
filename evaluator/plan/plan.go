// Package plan decides what of a batch of PromQL expressions runs where.
//
// It scopes expressions to a tenant, finds for every sub-expression the
// backends that hold its data, cuts out the fragments that a backend can
// answer exactly on its own, shares equal fragments over the whole batch, and
// keeps the rest for the local merge. The text form of a plan is stable.
//
// It is pure: it never reads a clock, does I/O, starts a goroutine or executes
// anything; package evaluator does. Inputs are never changed, and a finished
// Plan is immutable and safe for concurrent use. Its scripts are in testdata.
package plan
