package web

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	jsoniter "github.com/json-iterator/go"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/tocsin-rules/tocsin/proto/cluster/v1"
	"github.com/tocsin-rules/tocsin/ruler"
)

// The endpoints that members answer together, below /api/v1/.
const (
	rulesEndpoint         = "rules"
	alertsEndpoint        = "alerts"
	alertmanagersEndpoint = "alertmanagers"
)

// Question is a request of the API that every member answers for itself: so
// only what passes the filters, and fits the page, travels, and each member
// encodes its own.
type Question struct {
	// Endpoint is the path below /api/v1/, Query its parameters.
	Endpoint, Query string
}

// Part is a piece of an answer, encoded, and where it goes.
type Part struct {
	position

	// LastSlot is that of the group; of two members that show the same part, the
	// one with the newest is right.
	LastSlot time.Time
	// JSON is what the part becomes an element of the answer's list with, or
	// several elements with commas between them; nothing if it is empty.
	JSON []byte
}

// Local is what a member knows by itself.
type Local struct {
	Member string
	Groups []ruler.GroupStatus
	// Active and Dropped are the Alertmanagers that it sends to, and those that
	// relabelling dropped.
	Active, Dropped []*url.URL
}

// encoder is the one of Prometheus' API, to which that API adds fast ways to
// encode labels.
var encoder = jsoniter.ConfigCompatibleWithStandardLibrary

// Answer is one member's part of an answer, in order, without repetitions.
func (l Local) Answer(q Question) ([]Part, error) {
	params, err := url.ParseQuery(q.Query)
	if err != nil {
		return nil, fmt.Errorf("error parsing form values: %w", err)
	}
	switch q.Endpoint {
	case rulesEndpoint:
		return l.rules(params)
	case alertsEndpoint:
		return l.alerts()
	case alertmanagersEndpoint:
		return l.alertmanagers()
	}
	return nil, fmt.Errorf("members do not answer %q together", q.Endpoint)
}

func (l Local) rules(params url.Values) ([]Part, error) {
	f, err := parseFilter(params)
	if err != nil {
		return nil, err
	}
	p, err := parsePage(params)
	if err != nil {
		return nil, err
	}
	var parts []Part
	for _, g := range l.sorted() {
		at := groupPosition(g)
		if p.before(at) || !f.passesGroup(g.Group) {
			continue
		}
		if p.full(len(parts)) {
			break
		}
		shown := newGroup(l.Member, g, f)
		if len(shown.Rules) == 0 {
			continue
		}
		encoded, err := encoder.Marshal(shown)
		if err != nil {
			return nil, fmt.Errorf("encode group %q: %w", g.Group.Key, err)
		}
		parts = append(parts, Part{position: at, LastSlot: g.LastSlot, JSON: encoded})
	}
	return parts, nil
}

func (l Local) alerts() ([]Part, error) {
	parts := make([]Part, 0, len(l.Groups))
	for _, g := range l.sorted() {
		var active []*v1.Alert
		for _, r := range g.Rules {
			active = append(active, activeAlerts(r.Alerts)...)
		}
		encoded, err := encoder.Marshal(active)
		if err != nil {
			return nil, fmt.Errorf("encode alerts of group %q: %w", g.Group.Key, err)
		}
		elements := bytes.TrimSuffix(bytes.TrimPrefix(encoded, []byte("[")), []byte("]"))
		if len(active) == 0 {
			elements = nil
		}
		parts = append(parts, Part{position: groupPosition(g), LastSlot: g.LastSlot, JSON: elements})
	}
	return parts, nil
}

// The lists that an Alertmanager is in, as the first part of its position.
const (
	activeList  = "active"
	droppedList = "dropped"
)

func (l Local) alertmanagers() ([]Part, error) {
	var parts []Part
	for _, list := range []struct {
		name string
		urls []*url.URL
	}{{activeList, l.Active}, {droppedList, l.Dropped}} {
		for _, u := range list.urls {
			encoded, err := json.Marshal(v1.AlertmanagerTarget{URL: u.String()})
			if err != nil {
				return nil, err
			}
			parts = append(parts, Part{position: position{file: list.name, name: u.String()}, JSON: encoded})
		}
	}
	return parts, nil
}

// sorted are the groups in the order of Prometheus' API.
func (l Local) sorted() []ruler.GroupStatus {
	return slices.SortedFunc(slices.Values(l.Groups), func(a, b ruler.GroupStatus) int {
		return groupPosition(a).compare(groupPosition(b))
	})
}

// position is where a part goes in the answer.
type position struct{ file, name, key string }

func groupPosition(g ruler.GroupStatus) position {
	return position{file: g.Group.File, name: g.Group.Name, key: g.Group.Key}
}

func (p position) compare(other position) int {
	return cmp.Or(strings.Compare(p.file, other.file), strings.Compare(p.name, other.name), strings.Compare(p.key, other.key))
}

// merge puts the parts of all members in order. Of a group that two members show
// while it changes hands, it keeps what was evaluated last.
func merge(parts []Part) []Part {
	slices.SortFunc(parts, func(a, b Part) int {
		return cmp.Or(a.compare(b.position), b.LastSlot.Compare(a.LastSlot))
	})
	return slices.CompactFunc(parts, func(a, b Part) bool { return a.position == b.position })
}

// EncodeParts is how parts travel from member to member.
func EncodeParts(parts []Part) ([]byte, error) {
	msg := &clusterv1.StatusParts{Parts: make([]*clusterv1.StatusPart, len(parts))}
	for i, p := range parts {
		msg.Parts[i] = &clusterv1.StatusPart{File: p.file, Name: p.name, Key: p.key, Json: p.JSON}
		if !p.LastSlot.IsZero() {
			msg.Parts[i].LastSlotMs = p.LastSlot.UnixMilli()
		}
	}
	return proto.Marshal(msg)
}

// DecodeParts is the reverse of EncodeParts.
func DecodeParts(encoded []byte) ([]Part, error) {
	var msg clusterv1.StatusParts
	if err := proto.Unmarshal(encoded, &msg); err != nil {
		return nil, fmt.Errorf("decode another member's part of an answer: %w", err)
	}
	parts := make([]Part, len(msg.GetParts()))
	for i, p := range msg.GetParts() {
		parts[i] = Part{position: position{file: p.GetFile(), name: p.GetName(), key: p.GetKey()}, JSON: p.GetJson()}
		if ms := p.GetLastSlotMs(); ms != 0 {
			parts[i].LastSlot = time.UnixMilli(ms).UTC()
		}
	}
	return parts, nil
}
