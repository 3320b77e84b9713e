// Package evaluator answers a batch of PromQL expressions at one instant from
// many backends as if one Prometheus held all their data.
//
// Package plan says which fragments every backend has to run; one request a
// backend carries them; the rest is merged here by Prometheus' engine over the
// answers, or over raw series where a fragment cannot do. Evaluation fails
// closed: a query that needs a backend which does not answer, or which answers
// something else than it was asked, has an error that names the backend, while
// the other queries of the batch have their results. Only a query that asks
// for it gets a result without the data of backends that are away; a warning
// says so.
//
// What a query may cost is bounded, and what the queries of a tenant may within a
// minute. A query over a limit fails alone; its error names the limit.
//
// Queries that differ only in their tenant are evaluated together where that
// is exact, and each alone if that fails, so that none suffers for another.
// Backends are sent the fragments of that tenant first that asks for the least.
//
// The package never writes, never schedules and keeps no state between batches
// but connections, streams, plans, what tenants owe, how long fragments took, and
// which queries failed together. An Evaluator is safe for concurrent use. The scripts of the planner are in plan/testdata.
package evaluator
