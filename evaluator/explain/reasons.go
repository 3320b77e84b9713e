package explain

import "github.com/tocsin-rules/tocsin/evaluator/plan"

// meanings are what the planner's reason codes say, and what would help.
var meanings = map[plan.Reason]string{
	plan.ReasonRaw:            "pushdown is turned off for this batch",
	plan.ReasonOverlay:        "a backend may not show yet what the group has just recorded and this reads",
	plan.ReasonRawSelector:    "the series of this selector are fetched one by one, because what uses them stays local",
	plan.ReasonInfo:           "info() chooses the series that it reads while it runs; a join with group_left can be pushed down",
	plan.ReasonAggregation:    "this aggregation needs all values in one place; those of its argument are moved",
	plan.ReasonMatching:       "elements of different backends may match each other; partition labels in on(), or out of ignoring(), would tell that they do not",
	plan.ReasonParameter:      "a parameter depends on stored series, so it is known only after they have been read",
	plan.ReasonPartitionLabel: "the expression sets a partition label itself, so a backend's answer could collide with another's",
	plan.ReasonUnsupported:    "a backend that does not store its partition labels cannot be asked for this exactly",
	plan.ReasonInlined:        "this scalar is asked for first, in a request of its own, and written as a number into what is pushed down",
	plan.ReasonShared:         "other rules ask for its parts anyway, so it is made of their answers",
}

// foldMeanings are what the reasons say for which rules that differ only in
// their tenant are not evaluated as one.
var foldMeanings = map[plan.Reason]string{
	plan.ReasonFailed:      "the last attempt failed; it is made again after a while",
	plan.ReasonSelector:    "a selector is not pinned to the tenant by equality",
	plan.ReasonMetricName:  "a selector names no single metric, so that warnings could tell one tenant the names of another's series",
	plan.ReasonScalar:      "scalar() drops the label that tells the tenants apart",
	plan.ReasonConstant:    "the expression reads no series, or too many of its parts read none",
	plan.ReasonScopeLabel:  "the expression sets, reads or compares the tenant's label",
	plan.ReasonInfo:        "info() chooses the series that it reads while it runs",
	plan.ReasonAggregation: "an aggregation chooses among all series, not tenant by tenant",
	plan.ReasonParameter:   "a parameter depends on stored series, which differ from tenant to tenant",
}
