package evaluator

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// period is what the limits of a tenant are about.
const period = time.Minute

// maxAccounts bounds the tenants that owe something. When there are more, all
// debts are forgotten.
const maxAccounts = 100_000

// account is what a tenant has spent. It is paid back at an even rate, a whole
// limit in a period, so that over time no tenant spends more than its limits
// for each period; nothing is refused as long as less than a limit is owed.
type account struct {
	owed [4]float64 // in the order of remote.Limits
	at   time.Time
}

// measures puts limits or costs into the order of remote.Limits.
func measures(samples, series, bytes int64, d time.Duration) [4]float64 {
	return [4]float64{float64(samples), float64(series), float64(bytes), d.Seconds()}
}

// paid is the account at a later time.
func (a account) paid(limits plan.Limits, now time.Time) account {
	part := max(0, now.Sub(a.at).Seconds()/period.Seconds())
	for i, limit := range measures(limits.Samples, limits.Series, limits.Bytes, limits.Time) {
		a.owed[i] = max(0, a.owed[i]-limit*part)
	}
	a.at = now
	return a
}

// charged is the account after something was spent. What is not limited is not
// owed.
func (a account) charged(limits plan.Limits, c Cost) account {
	spent := measures(c.Samples, c.Series, c.Bytes, c.Time)
	for i, limit := range measures(limits.Samples, limits.Series, limits.Bytes, limits.Time) {
		if limit > 0 {
			a.owed[i] += spent[i]
		}
	}
	return a
}

// refusal says which limit is used up.
func (a account) refusal(limits plan.Limits) *Error {
	for i, limit := range measures(limits.Samples, limits.Series, limits.Bytes, limits.Time) {
		if limit > 0 && a.owed[i] >= limit {
			name := remote.Limits()[i]
			return &Error{Kind: KindLimit, Limit: tenantLimit(name), Err: fmt.Errorf(
				"the queries of the tenant owe %.6g %s, the limit is %.6g a minute", a.owed[i], measured[name], limit)}
		}
	}
	return nil
}

// measured says how what is limited reads in errors.
var measured = map[remote.Limit]string{
	remote.LimitSamples: "samples", remote.LimitSeries: "series", remote.LimitBytes: "bytes", remote.LimitTime: "seconds of backends' time",
}

// tenants are the accounts of all that have limits, by scope. It is for several
// goroutines.
type tenants struct {
	mu       sync.Mutex
	accounts map[string]account
}

// refusal says why a tenant may not ask now; nil if it may.
func (t *tenants) refusal(scope labels.Labels, limits plan.Limits, now time.Time) *Error {
	if limits == (plan.Limits{}) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.accounts[scope.String()].paid(limits, now).refusal(limits)
}

func (t *tenants) charge(scope labels.Labels, limits plan.Limits, c Cost, now time.Time) {
	if limits == (plan.Limits{}) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.accounts == nil || len(t.accounts) >= maxAccounts {
		t.accounts = map[string]account{}
	}
	key := scope.String()
	next := t.accounts[key].paid(limits, now).charged(limits, c)
	if next.owed == ([4]float64{}) {
		delete(t.accounts, key)
		return
	}
	t.accounts[key] = next
}
