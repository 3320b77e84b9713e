package plan

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Scope returns a copy of expr that reads nothing outside scope: every vector
// selector, wherever it stands, gets the matcher name="value" for each label
// of scope. The input is left as it is.
//
// Matchers of the expression on a scope label stay, so that the selector is
// the intersection of both. If one of them, of whatever type, does not match
// the scope's value then the intersection is empty: the author asked for
// somebody else's data, or for nobody's, and Scope answers with an error that
// names the selector and the label rather than with a rule that can never
// fire. Selectors that are wider than the scope (a regular expression or a
// negation that matches the value) are narrowed without a word.
//
// info() is refused: it reads series that no selector of the expression shows.
func Scope(expr parser.Expr, scope labels.Labels) (parser.Expr, error) {
	var errs []error
	var walk func(parser.Expr) (parser.Expr, error)
	walk = func(e parser.Expr) (parser.Expr, error) {
		if vs, ok := e.(*parser.VectorSelector); ok {
			scoped, err := scopeSelector(vs, scope)
			if err != nil {
				errs = append(errs, err)
			}
			return scoped, nil
		}
		if call, ok := e.(*parser.Call); ok && call.Func.Name == "info" && !scope.IsEmpty() {
			errs = append(errs, errors.New("info() reads series that cannot be restricted to a tenant: join with group_left instead"))
		}
		return mapChildren(e, walk)
	}
	scoped, err := walk(expr)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return scoped, nil
}

func scopeSelector(vs *parser.VectorSelector, scope labels.Labels) (*parser.VectorSelector, error) {
	c := copySelector(vs)
	var errs []error
	scope.Range(func(l labels.Label) {
		pinned := false
		for _, m := range vs.LabelMatchers {
			if m.Name != l.Name {
				continue
			}
			if !m.Matches(l.Value) {
				errs = append(errs, fmt.Errorf("selector %s contradicts the tenant: %s never matches %s=%q", vs, m, l.Name, l.Value))
			}
			pinned = pinned || m.Type == labels.MatchEqual
		}
		if !pinned {
			c.LabelMatchers = append(c.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		}
	})
	return c, errors.Join(errs...)
}
