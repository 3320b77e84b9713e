package web

import (
	"fmt"
	"net/http"
	"time"
)

// MaxClockSkew is by how much the clocks of two members may differ without being
// reported.
const MaxClockSkew = time.Second

// MemberStatus is what a member says of itself, at /api/v1/status/tocsin.
type MemberStatus struct {
	Member string `json:"member"`
	Ready  bool   `json:"ready"`
	// NotReady is why it is not.
	NotReady string `json:"notReady,omitempty"`
	// Members are the names of all members that it sees.
	Members []string `json:"members"`
	Groups  int      `json:"groups"`
	Rules   int      `json:"rules"`
	// Cost is what the groups cost in an hour, as members measure it to share
	// them out.
	Cost            uint64      `json:"cost"`
	SlotsEvaluated  uint64      `json:"slotsEvaluated"`
	SlotsMissed     uint64      `json:"slotsMissed"`
	SlotsBackfilled uint64      `json:"slotsBackfilled"`
	LagSeconds      float64     `json:"lagSeconds"`
	Firing          int         `json:"firing"`
	Pending         int         `json:"pending"`
	RuleErrors      []RuleError `json:"ruleErrors"`
	FileErrors      []FileError `json:"fileErrors"`
}

// RuleError is why the last evaluation of a rule failed.
type RuleError struct {
	Group string `json:"group"`
	Rule  string `json:"rule"`
	Error string `json:"error"`
}

// FileError is why a rule file does not run as it is.
type FileError struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// MemberDescription is what a member tells the others of itself.
type MemberDescription struct {
	MemberStatus

	Running []RunningGroup `json:"running"`
}

// RunningGroup is a group that a member evaluates.
type RunningGroup struct {
	Key string `json:"key"`
	// Since is when the member began, From the member that its state came
	// from, "backend" if it was read from there, empty if there was none.
	Since time.Time `json:"since"`
	From  string    `json:"from,omitempty"`
	// LastSlot is the newest slot that was evaluated; zero before the first.
	LastSlot time.Time `json:"lastSlot"`
	// Late says why a slot is not done long after it was due; empty if none is.
	Late string `json:"late,omitempty"`
}

// ClusterStatus is the cluster as one member sees it, at
// /api/v1/status/cluster.
type ClusterStatus struct {
	// Member is the one that answers.
	Member  string          `json:"member"`
	Members []ClusterMember `json:"members"`
	// Groups are all groups that the answering member has loaded, or that
	// anybody runs, sorted by key.
	Groups []GroupPlace `json:"groups"`
}

// ClusterMember is a member as gossip shows it, and what it says of itself.
type ClusterMember struct {
	Name string `json:"name"`
	// State is joining, ready or leaving.
	State       string `json:"state"`
	Zone        string `json:"zone"`
	HTTPAddress string `json:"httpAddress"`
	GRPCAddress string `json:"grpcAddress"`
	Version     uint32 `json:"version"`
	// ToldGroups and ToldCost are Groups and Cost of the Status as the member
	// gossiped them some time ago, for one that does not answer.
	ToldGroups uint64 `json:"toldGroups"`
	ToldCost   uint64 `json:"toldCost"`
	// Clock compares its clock with that of the answering member; nil for that
	// one itself, and if it is not known.
	Clock *Clock `json:"clock,omitempty"`
	// Error is why it does not answer; Status is nil then.
	Error  string        `json:"error,omitempty"`
	Status *MemberStatus `json:"status,omitempty"`
}

// Clock says by how much a member's clock is ahead, or behind if that is
// negative, give or take half of the time that it took to ask.
type Clock struct {
	AheadSeconds  float64 `json:"aheadSeconds"`
	WithinSeconds float64 `json:"withinSeconds"`
}

// Ahead is by how much the clock is ahead as far as is known.
func (c Clock) Ahead() time.Duration { return seconds(c.AheadSeconds) }

// Skew is by how much the clocks differ at least, in either direction.
func (c Clock) Skew() time.Duration { return max(0, c.Ahead().Abs()-seconds(c.WithinSeconds)) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// GroupPlace says who evaluates a group: who should, and who does.
type GroupPlace struct {
	Key string `json:"key"`
	// Rules is the number of rules; 0 if the answering member has not loaded
	// the group.
	Rules int `json:"rules"`
	// Owner and Successor are by the view of the answering member, empty if
	// there is none.
	Owner     string `json:"owner"`
	Successor string `json:"successor"`
	// Running are the members that say they evaluate it: one, but for moments
	// while it moves, and while the cluster is split.
	Running []GroupRun `json:"running"`
}

// GroupRun is a member that evaluates a group.
type GroupRun struct {
	Member   string    `json:"member"`
	Since    time.Time `json:"since"`
	From     string    `json:"from,omitempty"`
	LastSlot time.Time `json:"lastSlot"`
	Late     string    `json:"late,omitempty"`
}

func (h *Handler) serveCluster(w http.ResponseWriter, r *http.Request) {
	h.answer(w, http.StatusOK, response{Status: "success", Data: h.deps.Cluster.Status(r.Context())})
}

// serveDrain returns when everything is handed over, so that whoever stops the
// member may wait for it. The member stays up, leaving, until it is stopped;
// asking again changes nothing. It is refused to the last member that is ready.
func (h *Handler) serveDrain(w http.ResponseWriter, r *http.Request) {
	if err := h.deps.Drain(r.Context()); err != nil {
		http.Error(w, fmt.Sprintf("drain: %s", err), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "Drained.")
}
