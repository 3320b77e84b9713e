package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/web"
)

const defaultMemberURL = "http://127.0.0.1:19090"

// addCluster registers the commands about a running cluster.
func addCluster(p *command.Program) {
	cluster := p.App.Command("cluster", "Look at a running cluster of rule evaluators.")
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

func addClusterStatus(p *command.Program, cmd *kingpin.CmdClause) {
	var m memberFlags
	var format string
	addMember(cmd, &m)
	addFormat(cmd, &format)
	p.Commands["cluster status"] = func(ctx context.Context) int {
		status, err := m.cluster(ctx)
		if err == nil {
			err = show(p.Streams.Stdout, format, clusterView(status))
		}
		return outcome(p, err)
	}
}

func addOwners(p *command.Program, cmd *kingpin.CmdClause) {
	var m memberFlags
	var format string
	var wanted []string
	addMember(cmd, &m)
	addFormat(cmd, &format)
	cmd.Arg("group", "Text in the key of the groups to show (repeatable). Default: all groups.").StringsVar(&wanted)
	p.Commands["cluster owners"] = func(ctx context.Context) int {
		status, err := m.cluster(ctx)
		if err != nil {
			return outcome(p, err)
		}
		chosen := ownersView(slices.DeleteFunc(status.Groups, func(g web.GroupPlace) bool { return !anyIn(g.Key, wanted) }))
		if len(chosen) == 0 && len(wanted) > 0 {
			return p.Fail(command.ExitFailed, fmt.Errorf("no group has %s in its key", strings.Join(wanted, " or ")))
		}
		return outcome(p, show(p.Streams.Stdout, format, chosen))
	}
}

func addDrain(p *command.Program, cmd *kingpin.CmdClause) {
	var m memberFlags
	cmd.Flag("url", "Member to drain.").Required().StringVar(&m.url)
	addHTTPConfig(cmd, &m)
	p.Commands["cluster drain"] = func(ctx context.Context) int {
		answer, err := m.do(ctx, http.MethodPost, "-/drain", nil)
		fmt.Fprint(p.Streams.Stdout, string(answer))
		return outcome(p, err)
	}
}

// cluster asks the member for the state of the cluster.
func (m *memberFlags) cluster(ctx context.Context) (web.ClusterStatus, error) {
	var s web.ClusterStatus
	err := m.get(ctx, "api/v1/status/cluster", nil, &s)
	return s, err
}

// outcome is the exit status of a command that ended with err.
func outcome(p *command.Program, err error) int {
	if err != nil {
		return p.Fail(command.ExitFailed, err)
	}
	return command.ExitOK
}

// anyIn tells whether key contains any of the texts; no texts are in all.
func anyIn(key string, texts []string) bool {
	return len(texts) == 0 || slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(key, t) })
}
