package up

import (
	"github.com/tocsin-rules/tocsin/up/process"
)

// memberStopTimeout is how long a member may take to hand its groups over.
// It is less than a member's share of stopBound.
const memberStopTimeout = "3s"

// child is a process to run and what is shown of it.
type child struct {
	spec process.Spec
	url  string
}

// tiers lists the children in the order in which they start: none before all
// of the tier before it are ready. They stop in the opposite order.
func (l layout) tiers(d dirs, executable string) [][]child {
	build := func(name, http string, args ...string) child {
		args = append(args, "--web.listen-address="+http, "--web.enable-lifecycle", "--log.level="+l.logLevel, "--log.format="+l.logFormat)
		return child{url: "http://" + http, spec: process.Spec{
			Name: name, Path: executable, Args: args, ReadyURL: "http://" + http + "/-/ready",
			LogFile: d.log(name), Backoff: process.DefaultBackoff(),
		}}
	}
	var stores, alertmanagers, agents, members []child
	for _, s := range l.stores() {
		name := "backend-" + s.name
		stores = append(stores, build(name, s.http, l.storeArgs(d, s)...))
	}
	if l.embeddedAlertmanager() {
		alertmanagers = append(alertmanagers, build("alertmanager", l.alertmanager(), "alertmanager",
			"--config.file="+d.config("alertmanager.yml"), "--storage.path="+d.data("alertmanager"),
			"--web.external-url=http://"+l.alertmanager()))
	}
	for _, a := range l.agents() {
		agents = append(agents, build(a.name, a.http, "collector",
			"--config.file="+d.config(a.name+".yml"), "--storage.path="+d.data(a.name)))
	}
	for _, m := range l.memberList() {
		members = append(members, build(m.name, m.http, l.memberArgs(d, m)...))
	}
	return [][]child{stores, alertmanagers, agents, members}
}

func (l layout) storeArgs(d dirs, s store) []string {
	args := []string{"backend", "--storage.path=" + d.data("backend-"+s.name)}
	if s.cluster != "" {
		args = append(args, "--storage.external-label="+clusterLabel+"="+s.cluster)
	} else {
		args = append(args, "--storage.absent-label="+clusterLabel)
	}
	return append(args, grpcArgs(d, s.grpc)...)
}

func (l layout) memberArgs(d dirs, m member) []string {
	args := []string{
		"rule-evaluator", "--config.file=" + d.config("evaluator.yml"),
		"--cluster.name=" + m.name, "--cluster.zone=" + m.cluster,
		"--cluster.listen-address=" + m.gossip, "--cluster.key-file=" + d.gossipKey(),
		"--stop-timeout=" + memberStopTimeout,
	}
	for _, peer := range l.memberList() {
		if peer.name != m.name {
			args = append(args, "--cluster.peer="+peer.gossip)
		}
	}
	return append(args, grpcArgs(d, m.grpc)...)
}

func grpcArgs(d dirs, address string) []string {
	return []string{
		"--grpc.listen-address=" + address,
		"--grpc.tls-cert-file=" + d.cert(), "--grpc.tls-key-file=" + d.key(), "--grpc.tls-ca-file=" + d.ca(),
	}
}
