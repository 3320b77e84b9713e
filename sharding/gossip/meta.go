package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tocsin-rules/tocsin/sharding"
)

// What a member gossips about itself, in at most 512 bytes: a magic byte and
// the version of this format, then the protocol version (uvarint), the state (a
// byte), the weight (8 bytes, big endian IEEE 754), zone, HTTP and gRPC address
// (each a uvarint length and bytes) and, from the second version of the protocol
// on, the load (two uvarints). What may follow is ignored, so that fields can be
// added at the end; a change that older members can't live with takes a new
// version of the format.
const (
	metaMagic   = 'T'
	metaVersion = 1
)

var errMeta = errors.New("metadata of another program or version")

// Load sums up what a member evaluates, as it last told.
type Load struct {
	// Groups is the number of rule groups, Cost what they cost in the unit of
	// sharding.Costs.
	Groups, Cost uint64
}

// maxLoadBytes is what a load takes at most.
const maxLoadBytes = 2 * binary.MaxVarintLen64

func encodeMeta(m sharding.Member, l Load) []byte {
	b := []byte{metaMagic, metaVersion}
	b = binary.AppendUvarint(b, uint64(m.Version))
	b = append(b, byte(m.State))
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(m.Weight))
	for _, s := range []string{m.Zone, m.HTTPAddress, m.GRPCAddress} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, l.Groups)
	return binary.AppendUvarint(b, l.Cost)
}

// decodeMeta reads what encodeMeta wrote; the name isn't in it.
func decodeMeta(b []byte) (sharding.Member, Load, error) {
	if len(b) < 2 || b[0] != metaMagic || b[1] != metaVersion {
		return sharding.Member{}, Load{}, errMeta
	}
	r := metaReader{rest: b[2:]}
	m := sharding.Member{
		Version:     uint32(min(r.uvarint(), math.MaxUint32)),
		State:       sharding.State(r.bytes(1)[0]),
		Weight:      math.Float64frombits(binary.BigEndian.Uint64(r.bytes(8))),
		Zone:        string(r.bytes(r.uvarint())),
		HTTPAddress: string(r.bytes(r.uvarint())),
		GRPCAddress: string(r.bytes(r.uvarint())),
	}
	var l Load
	if len(r.rest) > 0 {
		l.Groups, l.Cost = r.uvarint(), r.uvarint()
	}
	if r.short || m.State < sharding.Joining || m.State > sharding.Leaving {
		return sharding.Member{}, Load{}, errMeta
	}
	return m, l, nil
}

// metaReader gives zeros from where the input turns out to be too short.
type metaReader struct {
	rest  []byte
	short bool
}

func (r *metaReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.short = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *metaReader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) || r.short {
		r.short = true
		return make([]byte, min(n, 8))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// nodeName is a process' name in memberlist.
func nodeName(name string, generation uint64) string {
	return name + "/" + strconv.FormatUint(generation, 16)
}

func splitNodeName(node string) (name string, generation uint64, err error) {
	i := strings.LastIndexByte(node, '/')
	if i <= 0 || i > maxNameLength {
		return "", 0, fmt.Errorf("node name %q is not one of a member: %w", node, errMeta)
	}
	generation, err = strconv.ParseUint(node[i+1:], 16, 64)
	if err != nil {
		return "", 0, fmt.Errorf("node name %q is not one of a member: %w", node, errMeta)
	}
	return node[:i], generation, nil
}
