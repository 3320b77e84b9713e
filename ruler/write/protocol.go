package write

import (
	"strings"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
)

// protocol is a version of remote write.
type protocol struct {
	message              remoteapi.WriteMessageType
	contentType, version string
}

var (
	protocolV1 = protocol{
		message:     remoteapi.WriteV1MessageType,
		contentType: "application/x-protobuf",
		version:     "0.1.0",
	}
	protocolV2 = protocol{
		message:     remoteapi.WriteV2MessageType,
		contentType: "application/x-protobuf;proto=io.prometheus.write.v2.Request",
		version:     "2.0.0",
	}
)

// reason sorts a refusal into one of few classes, by the words that
// Prometheus' storage uses.
func (a answer) reason() string {
	text := strings.ToLower(a.text)
	for _, r := range []struct{ word, reason string }{
		{"out of order", "out_of_order"},
		{"out of bounds", "out_of_bounds"},
		{"too old", "out_of_bounds"},
		{"duplicate sample", "duplicate_value"},
		{"label", "labels"},
	} {
		if strings.Contains(text, r.word) {
			return r.reason
		}
	}
	return "other"
}
