package ruler

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/tocsin-rules/tocsin/alerting/alert"
)

// producer makes the samples of rules out of what their expressions returned.
type producer struct {
	templates Templates
	resend    time.Duration
	log       *slog.Logger
}

// produce takes one rule of a group to a slot. What it returns beside the
// samples are markers of the series that the slot before had and this one has
// not; what a partial answer to a recording rule does not show has not ended.
// After an error the rule's state is what it was.
func (p producer) produce(ctx context.Context, g *group, i int, slot time.Time, answer Result) (samples, markers []promql.Sample, err error) {
	isAlert := g.def.Rules[i].Alert != ""
	if isAlert {
		samples, err = p.step(ctx, g, i, slot, answer)
	} else {
		samples, err = record(g.def, g.def.Rules[i], answer.Vector)
	}
	if err != nil {
		return nil, nil, err
	}
	if answer.Partial && !isAlert {
		return samples, nil, nil
	}
	return samples, ended(g.get(i).series, samples, slot.Add(-g.def.QueryOffset).UnixMilli()), nil
}

func (p producer) step(ctx context.Context, g *group, i int, slot time.Time, answer Result) ([]promql.Sample, error) {
	ar := alertRule(g.def, g.def.Rules[i], p.resend)
	step := alert.Step
	if answer.Partial {
		step = alert.StepPartial
	}
	result, err := step(ar, g.get(i).alerts, slot, answer.Vector, p.templates.Expander(ctx, g.def, ar.Name, slot))
	if result.TemplateErr != nil {
		p.log.Warn("expanding alert template", "group", g.def.Key, "rule", ar.Name, "err", result.TemplateErr)
	}
	if err != nil {
		return nil, err
	}
	g.update(i, func(s *ruleState) { s.setAlerts(result.State) })
	return result.Samples, nil
}
