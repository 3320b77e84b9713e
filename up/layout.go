package up

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// layout says which processes there are, where each listens and what it is
// for. It is a value derived from a request alone.
type layout struct {
	request
	// node is set if a node exporter answers on this machine.
	node bool
}

// store is an embedded backend.
type store struct {
	name string
	// cluster is empty for the global store.
	cluster    string
	http, grpc string
}

// member is a rule evaluator.
type member struct {
	name, cluster      string
	http, grpc, gossip string
}

// agent is a collector.
type agent struct{ name, cluster, http string }

// The ports of each kind of process, counted from the base.
const (
	memberHTTP   = 0
	storeHTTP    = 10
	storeGRPC    = 20
	agentHTTP    = 30
	memberGossip = 40
	alertHTTP    = 50
	webhookHTTP  = 51
	memberGRPC   = 60
)

func (l layout) address(kind, index int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.portBase+kind+index))
}

func (l layout) home() string { return "http://" + l.address(memberHTTP, 0) }

func (l layout) alertmanager() string { return l.address(alertHTTP, 0) }

func (l layout) webhook() string { return l.address(webhookHTTP, 0) }

// embeddedAlertmanager tells whether there is one of our own.
func (l layout) embeddedAlertmanager() bool { return len(l.alertmanagers) == 0 }

// stores are the embedded backends: all of them, only the global one beside
// those that the user named, or none beside one for everything.
func (l layout) stores() []store {
	var all []store
	add := func(name, cluster string) {
		i := len(all)
		all = append(all, store{name: name, cluster: cluster, http: l.address(storeHTTP, i), grpc: l.address(storeGRPC, i)})
	}
	if l.single != nil {
		return nil
	}
	if l.named == nil {
		for _, c := range l.clusters {
			add(c, c)
		}
	}
	add(globalBackend, "")
	return all
}

func (l layout) agents() []agent {
	all := make([]agent, len(l.clusters))
	for i, c := range l.clusters {
		all[i] = agent{name: "collector-" + c, cluster: c, http: l.address(agentHTTP, i)}
	}
	return all
}

// memberList deals the members out to the clusters, which are their zones.
func (l layout) memberList() []member {
	all := make([]member, l.members)
	for i := range all {
		all[i] = member{
			name: fmt.Sprintf("member-%d", i), cluster: l.clusters[i%len(l.clusters)],
			http: l.address(memberHTTP, i), grpc: l.address(memberGRPC, i), gossip: l.address(memberGossip, i),
		}
	}
	return all
}

// backendURL is where a cluster's series are kept.
func (l layout) backendURL(cluster string) *url.URL {
	if l.single != nil {
		return l.single
	}
	if u, ok := l.named[cluster]; ok {
		return u
	}
	for _, s := range l.stores() {
		if s.cluster == cluster {
			return &url.URL{Scheme: "http", Host: s.http}
		}
	}
	return nil
}

// targets are what the collector of a cluster scrapes, job by job. What is
// there once for all clusters belongs to the first.
func (l layout) targets(cluster string) []scrapeTarget {
	first := cluster == l.clusters[0]
	var all []scrapeTarget
	add := func(job, instance, address string) {
		all = append(all, scrapeTarget{cluster: cluster, job: job, instance: instance, address: address})
	}
	for _, s := range l.stores() {
		if s.cluster == cluster || s.cluster == "" && first {
			add("backend", "backend-"+s.name, s.http)
		}
	}
	for _, a := range l.agents() {
		if a.cluster == cluster {
			add("collector", a.name, a.http)
		}
	}
	for _, m := range l.memberList() {
		if m.cluster == cluster {
			add("rule-evaluator", m.name, m.http)
		}
	}
	if first && l.embeddedAlertmanager() {
		add("alertmanager", "alertmanager", l.alertmanager())
	}
	if first && l.node {
		add("node", "", nodeExporter)
	}
	for _, s := range l.scrapes {
		if s.cluster == cluster {
			all = append(all, s)
		}
	}
	return all
}

// portUse is a port that must be free, and for what.
type portUse struct {
	network, address, purpose string
}

func (l layout) ports() []portUse {
	var all []portUse
	add := func(address, purpose string, networks ...string) {
		for _, n := range networks {
			all = append(all, portUse{n, address, purpose})
		}
	}
	for _, m := range l.memberList() {
		add(m.http, "HTTP of "+m.name, "tcp")
		add(m.grpc, "gRPC of "+m.name, "tcp")
		add(m.gossip, "gossip of "+m.name, "tcp", "udp")
	}
	for _, s := range l.stores() {
		add(s.http, "HTTP of backend-"+s.name, "tcp")
		add(s.grpc, "gRPC of backend-"+s.name, "tcp")
	}
	for _, a := range l.agents() {
		add(a.http, "HTTP of "+a.name, "tcp")
	}
	if l.embeddedAlertmanager() {
		add(l.alertmanager(), "HTTP of alertmanager", "tcp")
		add(l.webhook(), "notifications to this terminal", "tcp")
	}
	return all
}
