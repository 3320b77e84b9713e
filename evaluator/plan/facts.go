package plan

import (
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// facts is what the planner knows about one sub-expression.
type facts struct {
	// reads: the value depends on stored series. If not, the expression has
	// the same value everywhere.
	reads bool
	// backends hold all the series that the value depends on.
	backends []int
	// separable: over all data the value is the disjoint union of the values
	// over each backend's own data, and each part carries the partition
	// labels of its backend. Such an expression is pushed down as it is.
	separable bool
}

// scanner computes facts, each node once.
type scanner struct {
	backends  []Backend
	partition []string
	known     map[parser.Expr]facts
}

func newScanner(backends []Backend) *scanner {
	return &scanner{
		backends:  backends,
		partition: labelNames(backends[0].Partition),
		known:     map[parser.Expr]facts{},
	}
}

func (s *scanner) facts(expr parser.Expr) facts {
	if f, ok := s.known[expr]; ok {
		return f
	}
	f := s.scan(expr)
	s.known[expr] = f
	return f
}

func (s *scanner) scan(expr parser.Expr) facts {
	switch e := expr.(type) {
	case *parser.VectorSelector:
		if _, ok := ScalarOf(e.LabelMatchers); ok {
			return facts{}
		}
		return facts{reads: true, backends: holders(s.backends, e), separable: true}
	case *parser.MatrixSelector:
		return s.facts(e.VectorSelector)
	case *parser.SubqueryExpr:
		return s.facts(e.Expr)
	case *parser.ParenExpr:
		return s.facts(e.Expr)
	case *parser.UnaryExpr:
		return s.facts(e.Expr)
	case *parser.StepInvariantExpr:
		return s.facts(e.Expr)
	case *parser.AggregateExpr:
		return s.aggregate(e)
	case *parser.BinaryExpr:
		return s.binary(e)
	case *parser.Call:
		return s.call(e)
	}
	return facts{}
}

func (s *scanner) aggregate(e *parser.AggregateExpr) facts {
	arg := s.facts(e.Expr)
	param := s.param(e)
	return facts{
		reads:     arg.reads || param.reads,
		backends:  union(arg.backends, param.backends),
		separable: arg.separable && !param.reads && s.groupsWithinBackend(e) && !s.overwritesPartition(e),
	}
}

func (s *scanner) param(e *parser.AggregateExpr) facts {
	if e.Param == nil {
		return facts{}
	}
	return s.facts(e.Param)
}

// groupsWithinBackend tells whether no group that matters spans two backends.
func (s *scanner) groupsWithinBackend(e *parser.AggregateExpr) bool {
	switch {
	case e.Op == parser.LIMIT_RATIO:
		// It judges every series by the hash of its labels.
		return true
	case e.Without:
		return containsNone(e.Grouping, s.partition)
	}
	return containsAll(e.Grouping, s.partition)
}

func (s *scanner) overwritesPartition(e *parser.AggregateExpr) bool {
	return e.Op == parser.COUNT_VALUES && slices.Contains(s.partition, stringArg(e.Param))
}

// call knows the functions whose value is not made sample by sample, or
// series by series, from their one vector argument.
func (s *scanner) call(e *parser.Call) facts {
	f := s.arguments(e)
	switch e.Func.Name {
	case "absent", "absent_over_time", "scalar", "vector":
		f.separable = false
	case "sort", "sort_desc", "sort_by_label", "sort_by_label_desc":
		// The order is global.
		f.separable = false
	case "label_replace", "label_join":
		f.separable = f.separable && !slices.Contains(s.partition, stringArg(e.Args[1]))
	case "info":
		// It looks for series of its own, wherever they are.
		return facts{reads: true, backends: s.everywhere()}
	}
	return f
}

// arguments are the facts of a function that works element by element on its
// one vector or range vector, with parameters that are the same everywhere.
func (s *scanner) arguments(e *parser.Call) facts {
	var f facts
	separable := true
	for _, arg := range e.Args {
		a := s.facts(arg)
		f.reads = f.reads || a.reads
		f.backends = union(f.backends, a.backends)
		separable = separable && (a.separable || !a.reads)
	}
	f.separable = f.reads && separable
	return f
}

func (s *scanner) everywhere() []int {
	all := make([]int, len(s.backends))
	for i := range all {
		all[i] = i
	}
	return all
}

func containsAll(list, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(list, w) })
}

func containsNone(list, unwanted []string) bool {
	return !slices.ContainsFunc(unwanted, func(u string) bool { return slices.Contains(list, u) })
}

func without(list, unwanted []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(unwanted, s) })
}

// stringArg is the value of a string argument; the parser has seen to it that
// it is a literal.
func stringArg(expr parser.Expr) string {
	if s, ok := unwrap(expr).(*parser.StringLiteral); ok {
		return s.Val
	}
	return ""
}
