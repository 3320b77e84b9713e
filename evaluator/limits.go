package evaluator

import (
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// Limits bound what queries may cost. A tenant is what has a scope of its own:
// all rules whose selectors are restricted to the same labels. Rules without a
// scope are one tenant, and queries of the API are of none.
type Limits struct {
	// Query bounds every single query. What is not set has a default.
	Query Bounds `yaml:"query,omitempty"`
	// Tenant bounds all queries of a tenant within a minute. What is not set
	// is not bounded.
	Tenant Bounds `yaml:"tenant,omitempty"`
	// Tenants have other limits, the first that fits a tenant counts.
	Tenants []TenantLimits `yaml:"tenants,omitempty"`
}

// TenantLimits are those of the tenants that have some labels in their scope.
type TenantLimits struct {
	Scope map[string]string `yaml:"scope"`
	// Query and Tenant are as in Limits, from where comes what is not set.
	Query  Bounds `yaml:"query,omitempty"`
	Tenant Bounds `yaml:"tenant,omitempty"`
}

// Bounds are the four measures of cost.
type Bounds struct {
	// Samples read, by backends and here.
	Samples int64 `yaml:"samples,omitempty"`
	// Series moved from backends.
	Series int64 `yaml:"series,omitempty"`
	// Bytes moved from backends.
	Bytes units.Base2Bytes `yaml:"bytes,omitempty"`
	// Time that backends are at work.
	Time model.Duration `yaml:"time,omitempty"`
}

// defaultLimits leave room for any reasonable query.
func defaultLimits() Limits {
	return Limits{Query: Bounds{
		Samples: 50_000_000,
		Series:  1_000_000,
		Bytes:   256 * units.MiB,
		Time:    model.Duration(20 * time.Second),
	}}
}

func (l Limits) validate() error {
	errs := []error{l.Query.validate("limits.query"), l.Tenant.validate("limits.tenant")}
	if q := l.Query; q.Samples == 0 || q.Series == 0 || q.Bytes == 0 || q.Time == 0 {
		errs = append(errs, errors.New("limits.query: every limit must be more than zero"))
	}
	for i, t := range l.Tenants {
		at := fmt.Sprintf("limits.tenants[%d]", i)
		errs = append(errs, t.Query.validate(at+".query"), t.Tenant.validate(at+".tenant"))
		if len(t.Scope) == 0 {
			errs = append(errs, fmt.Errorf("%s: scope is missing", at))
		}
	}
	return errors.Join(errs...)
}

func (b Bounds) validate(at string) error {
	if b.Samples < 0 || b.Series < 0 || b.Bytes < 0 || b.Time < 0 {
		return fmt.Errorf("%s: no limit may be negative", at)
	}
	return nil
}

// or fills in what is not set.
func (b Bounds) or(other Bounds) Bounds {
	if b.Samples == 0 {
		b.Samples = other.Samples
	}
	if b.Series == 0 {
		b.Series = other.Series
	}
	if b.Bytes == 0 {
		b.Bytes = other.Bytes
	}
	if b.Time == 0 {
		b.Time = other.Time
	}
	return b
}

func (b Bounds) plan() plan.Limits {
	return plan.Limits{Samples: b.Samples, Series: b.Series, Bytes: int64(b.Bytes), Time: time.Duration(b.Time)}
}

// of are the limits of the tenant with a scope.
func (l Limits) of(scope labels.Labels) (query, tenant Bounds) {
	for _, t := range l.Tenants {
		if t.fits(scope) {
			return t.Query.or(l.Query), t.Tenant.or(l.Tenant)
		}
	}
	return l.Query, l.Tenant
}

func (t TenantLimits) fits(scope labels.Labels) bool {
	for name, value := range t.Scope {
		if scope.Get(name) != value {
			return false
		}
	}
	return true
}

// Names of limits in errors and metrics are those of their settings.
func queryLimit(l remote.Limit) string { return "limits.query." + string(l) }

func tenantLimit(l remote.Limit) string { return "limits.tenant." + string(l) }

// Cost is what queries took.
type Cost struct {
	// Samples read by backends and here, Series and Bytes moved.
	Samples, Series, Bytes int64
	// Time that backends were at work.
	Time time.Duration
}

func (c Cost) plus(other Cost) Cost {
	return Cost{c.Samples + other.Samples, c.Series + other.Series, c.Bytes + other.Bytes, c.Time + other.Time}
}

// share is the part of one of n that asked together.
func (c Cost) share(n int) Cost {
	return Cost{c.Samples / int64(n), c.Series / int64(n), c.Bytes / int64(n), c.Time / time.Duration(n)}
}

func costOf(r remote.Result) Cost {
	return Cost{int64(r.SamplesRead), int64(remote.SeriesIn(r.Value)), int64(r.Bytes), r.Took}
}

// check is an error if a query costs more than it may. Its time is bounded
// while it is evaluated, fragment by fragment.
func (c Cost) check(l plan.Limits) error {
	for _, bound := range []struct {
		limit     remote.Limit
		got, most int64
	}{
		{remote.LimitSamples, c.Samples, l.Samples},
		{remote.LimitSeries, c.Series, l.Series},
		{remote.LimitBytes, c.Bytes, l.Bytes},
	} {
		if bound.most != 0 && bound.got > bound.most {
			return &Error{Kind: KindLimit, Limit: queryLimit(bound.limit), Err: fmt.Errorf(
				"the query takes %d %s in all, the limit is %d", bound.got, bound.limit, bound.most)}
		}
	}
	return nil
}
