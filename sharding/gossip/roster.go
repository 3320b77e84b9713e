package gossip

import (
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/tocsin-rules/tocsin/sharding"
)

const (
	// failedFor is how long the address of a member that failed is tried
	// again, should it have been cut off only.
	failedFor = 10 * time.Minute
	// maxFailed bounds these addresses.
	maxFailed = 64
)

// process is one run of a member.
type process struct {
	member     sharding.Member
	load       Load
	generation uint64
	address    string // for gossip
}

// roster turns what memberlist tells into views. memberlist holds a lock while
// it calls, so nothing here calls back.
type roster struct {
	node       string
	generation uint64
	metrics    *metrics
	changes    chan struct{}
	view       atomic.Pointer[sharding.View]

	mu     sync.Mutex
	local  sharding.Member
	load   Load // of this member
	costs  sharding.Costs
	others map[string]process   // by memberlist's name
	failed map[string]time.Time // by address
}

var (
	_ memberlist.Delegate      = (*roster)(nil)
	_ memberlist.EventDelegate = (*roster)(nil)
	_ memberlist.AliveDelegate = (*roster)(nil)
)

func newRoster(local sharding.Member, m *metrics) *roster {
	generation := uint64(time.Now().UnixNano())
	r := &roster{
		node:       nodeName(local.Name, generation),
		generation: generation,
		metrics:    m,
		changes:    make(chan struct{}, 1),
		local:      local,
		others:     map[string]process{},
		failed:     map[string]time.Time{},
	}
	r.view.Store(&sharding.View{})
	r.refresh()
	return r
}

// reachableAt puts the host that the others reach this member's gossip at in
// place of unspecified ones.
func (r *roster) reachableAt(gossip string) {
	own, _, _ := net.SplitHostPort(gossip)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, address := range []*string{&r.local.HTTPAddress, &r.local.GRPCAddress} {
		host, port, err := net.SplitHostPort(*address)
		if err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
			*address = net.JoinHostPort(own, port)
		}
	}
	r.refresh()
}

func (r *roster) setState(s sharding.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.local.State = s
	r.refresh()
}

// setLoad tells whether the load differs by so much that others should hear of
// it: a tenth of what they were told.
func (r *roster) setLoad(l Load) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	near := func(told, now uint64) bool { return max(told, now)-min(told, now) <= told/10 }
	if near(r.load.Groups, l.Groups) && near(r.load.Cost, l.Cost) {
		return false
	}
	r.load = l
	return true
}

// loads are those of all members, by name.
func (r *roster) loads() map[string]Load {
	r.mu.Lock()
	defer r.mu.Unlock()
	loads, newest := map[string]Load{}, map[string]uint64{}
	for _, p := range r.others {
		if p.generation >= newest[p.member.Name] {
			loads[p.member.Name], newest[p.member.Name] = p.load, p.generation
		}
	}
	loads[r.local.Name] = r.load
	return loads
}

// refresh makes the view anew: of each name the newest process, and of this
// member's own name this process. The lock is held.
func (r *roster) refresh() {
	newest := map[string]process{}
	for _, p := range r.others {
		if p.generation >= newest[p.member.Name].generation {
			newest[p.member.Name] = p
		}
	}
	newest[r.local.Name] = process{member: r.local}
	var members []sharding.Member
	for _, p := range newest {
		members = append(members, p.member)
	}
	v := sharding.NewView(members).WithCosts(r.costs)
	if v.Fingerprint() == r.view.Load().Fingerprint() {
		return
	}
	r.view.Store(&v)
	r.metrics.viewChanged(v)
	select {
	case r.changes <- struct{}{}:
	default:
	}
}

// NotifyAlive keeps nodes out that are no members this one understands.
func (r *roster) NotifyAlive(n *memberlist.Node) error {
	_, err := parseNode(n)
	if err != nil {
		r.metrics.rejected.WithLabelValues(reasonMetadata).Inc()
	}
	return err
}

func parseNode(n *memberlist.Node) (process, error) {
	name, generation, err := splitNodeName(n.Name)
	if err != nil {
		return process{}, err
	}
	m, l, err := decodeMeta(n.Meta)
	if err != nil {
		return process{}, err
	}
	m.Name = name
	return process{member: m, load: l, generation: generation, address: n.Address()}, nil
}

// NotifyJoin takes a new process in.
func (r *roster) NotifyJoin(n *memberlist.Node) {
	p, err := parseNode(n)
	if err != nil || n.Name == r.node {
		return // NotifyAlive has reported it.
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.member.Name == r.local.Name && p.generation > r.generation {
		r.metrics.nameConflicts.Inc()
	}
	delete(r.failed, n.Address())
	r.others[n.Name] = p
	r.refresh()
}

// NotifyUpdate takes the new state of a process.
func (r *roster) NotifyUpdate(n *memberlist.Node) {
	p, err := parseNode(n)
	if err != nil || n.Name == r.node {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.others[n.Name] = p
	r.refresh()
}

// NotifyLeave takes a process out. One that had not said that it would leave
// has failed, or is cut off.
func (r *roster) NotifyLeave(n *memberlist.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.others[n.Name]
	if ok && p.member.State != sharding.Leaving {
		r.noteFailed(n.Address())
	}
	delete(r.others, n.Name)
	r.refresh()
}

func (r *roster) noteFailed(address string) {
	now := time.Now()
	maps.DeleteFunc(r.failed, func(_ string, since time.Time) bool { return now.Sub(since) > failedFor })
	if len(r.failed) < maxFailed {
		r.failed[address] = now
	}
}

// addresses are those of the other processes that are there.
func (r *roster) addresses() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	present := map[string]bool{}
	for _, p := range r.others {
		present[p.address] = true
	}
	return present
}

// failedAddresses are those of members that failed not long ago, sorted.
func (r *roster) failedAddresses() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(r.failed, func(_ string, since time.Time) bool { return now.Sub(since) > failedFor })
	return slices.Sorted(maps.Keys(r.failed))
}

// hasNewerSelf tells whether another process took this member's name later.
func (r *roster) hasNewerSelf() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.others {
		if p.member.Name == r.local.Name && p.generation > r.generation {
			return true
		}
	}
	return false
}

// NodeMeta is what the others are told about this member. Validate has seen
// to it that it fits.
func (r *roster) NodeMeta(int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return encodeMeta(r.local, r.load)
}
