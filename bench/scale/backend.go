package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"google.golang.org/grpc"

	pushdownv1 "github.com/tocsin-rules/tocsin/proto/pushdown/v1"
)

// backend answers at once: every fragment with one series, but alerting
// expressions with none, so that all alerts are idle.
type backend struct {
	pushdownv1.UnimplementedPushdownServer

	interval  time.Duration
	web, rpc  net.Listener
	server    *grpc.Server
	batches   atomic.Int64
	fragments atomic.Int64
	// late counts fragments that were asked for an interval after their slot.
	late   atomic.Int64
	writes atomic.Int64
}

func startBackend(interval time.Duration) (*backend, error) {
	b := &backend{interval: interval, server: grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))}
	var webErr, rpcErr error
	b.web, webErr = net.Listen("tcp", "127.0.0.1:0")
	b.rpc, rpcErr = net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(webErr, rpcErr); err != nil {
		return nil, err
	}
	pushdownv1.RegisterPushdownServer(b.server, b)
	go func() { _ = b.server.Serve(b.rpc) }()
	go func() { _ = http.Serve(b.web, b) }() //nolint:gosec // on loopback, for minutes
	return b, nil
}

func (b *backend) stop() {
	b.server.Stop()
	_ = b.web.Close()
}

// Execute is the native protocol's.
func (b *backend) Execute(stream grpc.BidiStreamingServer[pushdownv1.BatchRequest, pushdownv1.BatchResponse]) error {
	first := true
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		resp := &pushdownv1.BatchResponse{BatchId: req.GetBatchId(), Done: true}
		if first {
			first = false
			resp.NewSymbols = []string{"job", "shop"}
			resp.NewLabelSets = []*pushdownv1.LabelSet{{Symbols: []uint32{0, 1}}}
		}
		for i, f := range req.GetFragments() {
			resp.Results = append(resp.Results, b.answer(uint32(i), f))
		}
		b.batches.Add(1)
		b.fragments.Add(int64(len(req.GetFragments())))
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (b *backend) answer(i uint32, f *pushdownv1.Fragment) *pushdownv1.FragmentResult {
	if time.Since(time.UnixMilli(f.GetEndMs())) > b.interval {
		b.late.Add(1)
	}
	r := &pushdownv1.FragmentResult{Fragment: i, Type: pushdownv1.ValueType_VALUE_TYPE_VECTOR}
	if !strings.Contains(f.GetExpr(), ">") {
		r.LabelSets, r.Values = []uint32{0}, []float64{1}
	}
	return r
}

// ServeHTTP takes remote write, knows no series, and is always ready.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch {
	case strings.HasSuffix(r.URL.Path, "/write"):
		b.writes.Add(1)
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(r.URL.Path, "/read"):
		body, _ := (&prompb.ReadResponse{Results: []*prompb.QueryResult{{}}}).Marshal()
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.Header().Set("Content-Encoding", "snappy")
		_, _ = w.Write(snappy.Encode(nil, body))
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	}
}
