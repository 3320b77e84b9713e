package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/tocsin-rules/tocsin/web"
)

const defaultMemberURL = "http://127.0.0.1:19090"

// addCluster registers the commands about a running cluster.
func addCluster(p *program) {
	cluster := p.app.Command("cluster", "Look at a running cluster of rule evaluators.")
	addClusterStatus(p, cluster.Command("status", "Show the members, what they say of themselves, and the last handoffs."))
	addOwners(p, cluster.Command("owners", "Show who evaluates which group, and who would be next."))
	addDrain(p, cluster.Command("drain", "Have a member hand over all its groups. It stays up and takes none until it is started again."))
}

func addMember(cmd *kingpin.CmdClause, m *memberFlags) {
	cmd.Flag("url", "Member to ask; any one answers for all.").Default(defaultMemberURL).StringVar(&m.url)
	addHTTPConfig(cmd, m)
}

func addHTTPConfig(cmd *kingpin.CmdClause, m *memberFlags) {
	cmd.Flag("http.config.file", "HTTP client configuration for the member, as promtool takes it.").StringVar(&m.configFile)
}

func addClusterStatus(p *program, cmd *kingpin.CmdClause) {
	var m memberFlags
	var format string
	addMember(cmd, &m)
	addFormat(cmd, &format)
	p.commands["cluster status"] = func(ctx context.Context) int {
		status, err := m.cluster(ctx)
		if err == nil {
			err = show(p.streams.Stdout, format, clusterView(status))
		}
		return p.outcome(err)
	}
}

func addOwners(p *program, cmd *kingpin.CmdClause) {
	var m memberFlags
	var format string
	var wanted []string
	addMember(cmd, &m)
	addFormat(cmd, &format)
	cmd.Arg("group", "Text in the key of the groups to show (repeatable). Default: all groups.").StringsVar(&wanted)
	p.commands["cluster owners"] = func(ctx context.Context) int {
		status, err := m.cluster(ctx)
		if err != nil {
			return p.outcome(err)
		}
		chosen := ownersView(slices.DeleteFunc(status.Groups, func(g web.GroupPlace) bool { return !anyIn(g.Key, wanted) }))
		if len(chosen) == 0 && len(wanted) > 0 {
			return p.fail(exitFailed, fmt.Errorf("no group has %s in its key", strings.Join(wanted, " or ")))
		}
		return p.outcome(show(p.streams.Stdout, format, chosen))
	}
}

func addDrain(p *program, cmd *kingpin.CmdClause) {
	var m memberFlags
	cmd.Flag("url", "Member to drain.").Required().StringVar(&m.url)
	addHTTPConfig(cmd, &m)
	p.commands["cluster drain"] = func(ctx context.Context) int {
		answer, err := m.do(ctx, http.MethodPost, "-/drain", nil)
		fmt.Fprint(p.streams.Stdout, string(answer))
		return p.outcome(err)
	}
}

// cluster asks the member for the state of the cluster.
func (m *memberFlags) cluster(ctx context.Context) (web.ClusterStatus, error) {
	var s web.ClusterStatus
	err := m.get(ctx, "api/v1/status/cluster", nil, &s)
	return s, err
}

// outcome is the exit status of a command that ended with err.
func (p *program) outcome(err error) int {
	if err != nil {
		return p.fail(exitFailed, err)
	}
	return exitOK
}

// anyIn tells whether key contains any of the texts; no texts are in all.
func anyIn(key string, texts []string) bool {
	return len(texts) == 0 || slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(key, t) })
}
