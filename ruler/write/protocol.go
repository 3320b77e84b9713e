package write

import remoteapi "github.com/prometheus/client_golang/exp/api/remote"

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
