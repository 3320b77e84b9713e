package plan

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

func parse(t testing.TB, expr string) parser.Expr {
	t.Helper()
	e, err := parser.ParseExpr(expr)
	require.NoError(t, err)
	return e
}

func TestScopeRestrictsEverySelector(t *testing.T) {
	t.Parallel()
	scope := labels.FromStrings("cluster", "east", "namespace", "team-a")
	for name, tc := range map[string]struct{ in, want string }{
		"a plain selector":                 {`up`, `up{cluster="east",namespace="team-a"}`},
		"a nameless selector":              {`{job="x"}`, `{cluster="east",job="x",namespace="team-a"}`},
		"a selector by regexp on the name": {`{__name__=~"a|b"}`, `{__name__=~"a|b",cluster="east",namespace="team-a"}`},
		"a matrix selector":                {`rate(x[5m] offset 1m)`, `rate(x{cluster="east",namespace="team-a"}[5m] offset 1m)`},
		"a selector at a fixed time":       {`x @ 100`, `x{cluster="east",namespace="team-a"} @ 100.000`},
		"absent":                           {`absent(x{a="b"})`, `absent(x{a="b",cluster="east",namespace="team-a"})`},
		"a subquery":                       {`max_over_time(sum(x)[1h:1m])`, `max_over_time(sum(x{cluster="east",namespace="team-a"})[1h:1m])`},
		"both sides of an operator":        {`a / on (b) group_left (c) d`, `a{cluster="east",namespace="team-a"} / on (b) group_left (c) d{cluster="east",namespace="team-a"}`},
		"the parameter of an aggregation":  {`topk(scalar(k), x)`, `topk(scalar(k{cluster="east",namespace="team-a"}), x{cluster="east",namespace="team-a"})`},
		"negation and parentheses":         {`-(x)`, `-(x{cluster="east",namespace="team-a"})`},
		"an equal matcher is not doubled":  {`x{namespace="team-a"}`, `x{cluster="east",namespace="team-a"}`},
		"a wider regexp is intersected":    {`x{namespace=~"team-.*"}`, `x{cluster="east",namespace="team-a",namespace=~"team-.*"}`},
		"a wider negation is intersected":  {`x{namespace!="kube-system"}`, `x{cluster="east",namespace!="kube-system",namespace="team-a"}`},
		"an expression without a selector": {`vector(time())`, `vector(time())`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := parse(t, tc.in)
			before := in.String()
			out, err := Scope(in, scope)
			require.NoError(t, err)
			require.Equal(t, tc.want, out.String())
			require.Equal(t, before, in.String(), "the input was changed")
			again, err := Scope(out, scope)
			require.NoError(t, err)
			require.Equal(t, out.String(), again.String(), "scoping twice differs")
		})
	}
}

func TestScopeRefusesContradictions(t *testing.T) {
	t.Parallel()
	scope := labels.FromStrings("namespace", "team-a")
	for name, tc := range map[string]struct{ in, want string }{
		"an equal matcher for another tenant": {`up{namespace="team-b"}`, `selector up{namespace="team-b"} contradicts the tenant: namespace="team-b" never matches namespace="team-a"`},
		"a regexp without the tenant":         {`up{namespace=~"b|c"}`, `namespace=~"b|c" never matches`},
		"a negation of the tenant":            {`sum(up{namespace!="team-a"})`, `namespace!="team-a" never matches`},
		"a selector for series without it":    {`up{namespace=""}`, `namespace="" never matches`},
		"one deep inside":                     {`absent_over_time((1 + x{namespace!~"team.*"})[5m:])`, `never matches`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Scope(parse(t, tc.in), scope)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestScopeRefusesInfo(t *testing.T) {
	t.Parallel()
	call := &parser.Call{Func: parser.Functions["info"], Args: parser.Expressions{parse(t, "up")}}
	_, err := Scope(call, labels.FromStrings("namespace", "team-a"))
	require.ErrorContains(t, err, "info()")
	_, err = Scope(call, labels.EmptyLabels())
	require.NoError(t, err)
}
