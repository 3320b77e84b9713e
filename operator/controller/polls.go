package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/status"
)

const (
	// pollPeriod is the time between two polls of collectors and rule-evaluators.
	pollPeriod = 10 * time.Second
	// pollTimeout bounds one request.
	pollTimeout = 5 * time.Second
	// pollConcurrency is the number of collectors that are asked at a time.
	pollConcurrency = 8
	// maxAnswerBytes bounds one answer.
	maxAnswerBytes = 32 << 20
	// maxStatusWrites bounds how many statuses one poll writes; what is left over
	// is written after the next one.
	maxStatusWrites = 100
	// rulesPage is how many groups a request to rule-evaluators asks for.
	rulesPage = 500

	nameLabel = "app.kubernetes.io/name"
	httpPort  = "metrics"
)

// polls keeps the status of targets and rules in the resources that they come
// from, while the OperatorConfig enables that.
type polls struct {
	*configuration

	http   *http.Client
	logger *slog.Logger
	// turn is where the next round of writes begins, so that each resource has its
	// turn.
	turn int
}

func newPolls(c *configuration, logger *slog.Logger) *polls {
	return &polls{configuration: c, logger: logger, http: &http.Client{Timeout: pollTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // Nobody sends the operator elsewhere.
	}}}
}

// NeedLeaderElection makes the leading operator alone poll.
func (p *polls) NeedLeaderElection() bool { return true }

// Start polls until ctx ends.
func (p *polls) Start(ctx context.Context) error {
	ticker := time.NewTicker(pollPeriod)
	defer ticker.Stop()
	for {
		if err := p.poll(ctx); err != nil && ctx.Err() == nil {
			p.logger.Warn("polling the status of targets and rules failed", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (p *polls) poll(ctx context.Context) error {
	oc, err := operatorConfig(ctx, p.client, p.settings)
	if err != nil {
		return err
	}
	// While it is not enabled nothing is known of any target or rule.
	targets, rules := status.NewTargets(), status.NewRules()
	var errTargets, errRules error
	if oc != nil && oc.Features.TargetStatus.Enabled {
		targets, errTargets = p.targets(ctx)
		rules, errRules = p.rules(ctx)
	}
	changes, err := p.changes(ctx, targets, rules)
	return errors.Join(errTargets, errRules, err, p.write(ctx, changes))
}

// targets asks all collectors. One that does not answer is counted; the answer
// is nil if none does.
func (p *polls) targets(ctx context.Context) (*status.Targets, error) {
	addresses, err := p.addresses(ctx, "collector")
	if err != nil {
		return nil, err
	}
	all := status.NewTargets()
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(pollConcurrency)
	for _, address := range addresses {
		g.Go(func() error {
			var s status.Summary
			err := p.get(ctx, address, "/api/v1/targets/summary", nil, &s)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				p.logger.Debug("a collector does not tell the status of its targets", "address", address, "err", err)
				all.Fail()
				return nil
			}
			all.Add(s)
			return nil
		})
	}
	err = g.Wait()
	if len(addresses) > 0 && all.Fraction() == "0" {
		return nil, errors.Join(err, errors.New("no collector tells the status of its targets"))
	}
	return all, err
}

// rules asks any rule-evaluator, which answers for all of them, page by page.
// The answer is nil if there is none.
func (p *polls) rules(ctx context.Context) (*status.Rules, error) {
	addresses, err := p.addresses(ctx, "rule-evaluator")
	if err != nil || len(addresses) == 0 {
		return nil, err
	}
	var errs []error
	for _, address := range addresses {
		all, err := p.rulesOf(ctx, address)
		if err == nil {
			return all, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (p *polls) rulesOf(ctx context.Context, address string) (*status.Rules, error) {
	all := status.NewRules()
	params := url.Values{"exclude_alerts": {"true"}, "group_limit": {strconv.Itoa(rulesPage)}}
	for {
		var page struct {
			Groups         []status.RuleGroup `json:"groups"`
			GroupNextToken string             `json:"groupNextToken"`
		}
		if err := p.get(ctx, address, "/api/v1/rules", params, &page); err != nil {
			return nil, err
		}
		for _, g := range page.Groups {
			all.Add(g)
		}
		if page.GroupNextToken == "" {
			return all, nil
		}
		params.Set("group_next_token", page.GroupNextToken)
	}
}

// addresses are those of the HTTP ports of a component's running pods. A pod
// without an address is given an empty one.
func (p *polls) addresses(ctx context.Context, component string) ([]string, error) {
	var pods corev1.PodList
	err := p.client.List(ctx, &pods, client.InNamespace(p.settings.SystemNamespace), client.MatchingLabels{nameLabel: component})
	var out []string
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			out = append(out, addressOf(&pod))
		}
	}
	return out, err
}

func addressOf(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == httpPort && pod.Status.PodIP != "" {
				return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port.ContainerPort)))
			}
		}
	}
	return ""
}

// get decodes the data of an answer of Prometheus' form.
func (p *polls) get(ctx context.Context, address, path string, params url.Values, data any) error {
	if address == "" {
		return errors.New("the pod has no address yet")
	}
	u := url.URL{Scheme: "http", Host: address, Path: path, RawQuery: params.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", u.String(), resp.Status)
	}
	body := &io.LimitedReader{R: resp.Body, N: maxAnswerBytes}
	if err := json.NewDecoder(body).Decode(&struct {
		Data any `json:"data"`
	}{data}); err != nil {
		return fmt.Errorf("answer of %s: %w", u.String(), err)
	}
	return nil
}

// change is a resource whose status is to be written.
type change struct {
	object object
	// set puts the status into a copy of the object.
	set func(object)
}

// changes are those that are news. What is nil is not known, and stays.
func (p *polls) changes(ctx context.Context, targets *status.Targets, rules *status.Rules) ([]change, error) {
	var endpoints map[string][]v1.ScrapeEndpointStatus
	if targets != nil {
		endpoints = targets.ByResource(metav1.Now())
	}
	var files map[string]v1.RulesStatus
	if rules != nil {
		files = rules.ByFile()
	}
	var out []change
	for _, k := range p.kinds {
		objects, err := k.list(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			var set func(object)
			switch s := podStatus(o); {
			case s != nil && targets != nil:
				set = endpointsChange(s, endpoints[k.key(o)])
			case s == nil && rules != nil:
				set = rulesChange(ruleStatus(o), files[k.key(o)])
			}
			if set != nil {
				out = append(out, change{o, set})
			}
		}
	}
	return out, nil
}

// endpointsChange is nil if there is nothing new.
func endpointsChange(before *v1.PodMonitoringStatus, now []v1.ScrapeEndpointStatus) func(object) {
	if status.SameTargets(before.EndpointStatuses, now) {
		return nil
	}
	return func(o object) { podStatus(o).EndpointStatuses = now }
}

// rulesChange is nil if there is nothing new.
func rulesChange(before *v1.RulesStatus, now v1.RulesStatus) func(object) {
	if status.SameRules(*before, now) {
		return nil
	}
	return func(o object) {
		s := ruleStatus(o)
		s.ActiveRules, s.FailingRules, s.GroupStatuses = now.ActiveRules, now.FailingRules, now.GroupStatuses
	}
}

// podStatus is nil for rules.
func podStatus(o object) *v1.PodMonitoringStatus {
	switch o := o.(type) {
	case *v1.PodMonitoring:
		return &o.Status
	case *v1.ClusterPodMonitoring:
		return &o.Status
	case *v1.ClusterNodeMonitoring:
		return &o.Status
	}
	return nil
}

// ruleStatus is nil for what is about scraping.
func ruleStatus(o object) *v1.RulesStatus {
	switch o := o.(type) {
	case *v1.Rules:
		return &o.Status
	case *v1.ClusterRules:
		return &o.Status
	case *v1.GlobalRules:
		return &o.Status
	}
	return nil
}

// write writes as many changes as one poll may, each time beginning with others.
func (p *polls) write(ctx context.Context, changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	var errs []error
	begin := p.turn % len(changes)
	for i := range min(len(changes), maxStatusWrites) {
		c := changes[(begin+i)%len(changes)]
		after := c.object.DeepCopyObject().(object)
		c.set(after)
		err := p.client.Status().Patch(ctx, after, client.MergeFrom(c.object))
		errs = append(errs, client.IgnoreNotFound(err))
	}
	p.turn = begin + maxStatusWrites
	return errors.Join(errs...)
}
