package remote

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// Bounds of the tables of one stream. Backends end a stream long before.
const (
	maxSymbols   = 4 << 20
	maxLabelSets = 2 << 20
)

// stream is one long-lived stream and the label sets that it has carried. It
// is used by one batch at a time.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	limit  int64

	rpc     grpc.BidiStreamingClient[pushdownv1.BatchRequest, pushdownv1.BatchResponse]
	symbols []string
	sets    []labels.Labels
}

// run sends a batch and collects the whole answer, or what there was of it
// before an error. After an error, and after ctx has ended, the stream is of no
// use.
func (s *stream) run(ctx context.Context, api pushdownv1.PushdownClient, req *pushdownv1.BatchRequest, fragments []plan.Fragment) (*assembly, error) {
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	a := newAssembly(s, fragments)
	if err := s.send(api, req); err != nil {
		return a, err
	}
	for {
		msg, err := s.rpc.Recv()
		if err != nil {
			return a, err
		}
		if err := a.add(req.GetBatchId(), msg); err != nil {
			return a, err
		}
		if msg.GetDone() {
			break
		}
	}
	if !stop() {
		// The stream was cancelled at the last moment.
		return a, context.Cause(ctx)
	}
	return a, nil
}

// send opens the stream if need be. An io.EOF of Send hides the reason; Recv
// tells it.
func (s *stream) send(api pushdownv1.PushdownClient, req *pushdownv1.BatchRequest) error {
	if s.rpc == nil {
		rpc, err := api.Execute(s.ctx)
		if err != nil {
			return err
		}
		s.rpc = rpc
	}
	if err := s.rpc.Send(req); err != nil {
		if _, why := s.rpc.Recv(); why != nil {
			return why
		}
		return err
	}
	return nil
}

// learn continues the tables with what a message brings.
func (s *stream) learn(msg *pushdownv1.BatchResponse) error {
	if len(s.symbols)+len(msg.GetNewSymbols()) > maxSymbols || len(s.sets)+len(msg.GetNewLabelSets()) > maxLabelSets {
		return errorf(KindLimit, "the stream carries more than %d symbols or %d label sets", maxSymbols, maxLabelSets)
	}
	s.symbols = append(s.symbols, msg.GetNewSymbols()...)
	for _, set := range msg.GetNewLabelSets() {
		ls, err := s.labelSet(set.GetSymbols())
		if err != nil {
			return &Error{Kind: KindBackend, Err: err}
		}
		s.sets = append(s.sets, ls)
	}
	return nil
}

func (s *stream) labelSet(numbers []uint32) (labels.Labels, error) {
	if len(numbers)%2 != 0 {
		return labels.EmptyLabels(), fmt.Errorf("a label set has %d symbols, which are no pairs", len(numbers))
	}
	b := labels.NewScratchBuilder(len(numbers) / 2)
	previous := ""
	for i := 0; i < len(numbers); i += 2 {
		if int(numbers[i]) >= len(s.symbols) || int(numbers[i+1]) >= len(s.symbols) {
			return labels.EmptyLabels(), fmt.Errorf("a label set refers to a symbol beyond the %d known ones", len(s.symbols))
		}
		name := s.symbols[numbers[i]]
		if name <= previous {
			return labels.EmptyLabels(), fmt.Errorf("a label set is not sorted at %q", name)
		}
		previous = name
		b.Add(name, s.symbols[numbers[i+1]])
	}
	return b.Labels(), nil
}
