package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/operator/migrate"
	"github.com/tocsin-rules/tocsin/ruler/source"
)

// exitLost is the status of "migrate" if everything was migrated, but not
// everything has an equivalent.
const exitLost = 3

// migrateOptions are what "migrate" is asked for.
type migrateOptions struct {
	migrate.Options

	// paths are files, directories and patterns. Without any, standard input is
	// read.
	paths []string
	check bool
}

// addMigrate registers "migrate". Manifests go to standard output, remarks to
// standard error. Its status is 0 if everything has an equivalent, 1 if something
// was not migrated, and 3 if something was lost on the way.
func addMigrate(p *command.Program) {
	var o migrateOptions
	cmd := p.App.Command("migrate", "Turn manifests of prometheus-operator and rule files of Prometheus, Thanos, vmalert, Mimir and Cortex into custom resources.")
	cmd.Flag("check", "Only say what has no equivalent, and why.").BoolVar(&o.check)
	cmd.Flag("rules.kind", "What rules become: ClusterRules see all data of their cluster, as in its Prometheus; Rules that of their namespace; GlobalRules that of all clusters.").
		Default("ClusterRules").EnumVar(&o.Kind, "Rules", "ClusterRules", "GlobalRules")
	cmd.Flag("namespace", "Namespace of what has none.").Default("default").StringVar(&o.Namespace)
	cmd.Flag("interval", "Scrape interval of endpoints that have none.").Default("30s").StringVar(&o.Interval)
	cmd.Flag("cluster", "Name of the cluster that rules are checked for: what asks for the data of another one is an error.").StringVar(&o.Settings.Cluster)
	cmd.Arg("path", "Manifest, rule file, directory or pattern (repeatable). Default: standard input.").StringsVar(&o.paths)
	p.Commands["migrate"] = func(context.Context) int { return runMigrate(o, p.Streams) }
}

func runMigrate(o migrateOptions, s command.Streams) int {
	files, err := readAll(o.paths, os.Stdin)
	if err != nil {
		fmt.Fprintln(s.Stderr, "tocsin: error:", err)
		return command.ExitFailed
	}
	o.Settings.Scope = plan.Scope
	result := migrate.Migrate(files, o.Options)
	count := map[migrate.Level]int{}
	for _, n := range result.Notes {
		fmt.Fprintln(s.Stderr, n)
		count[n.Level]++
	}
	if !o.check {
		for _, text := range result.Manifests {
			fmt.Fprintf(s.Stdout, "---\n%s", text)
		}
	}
	fmt.Fprintf(s.Stderr, "%d resources; remarks: %d changed, %d lost, %d failed\n", len(result.Manifests), count[migrate.Changed], count[migrate.Lost], count[migrate.Failed])
	switch result.Worst() {
	case migrate.Failed:
		return command.ExitFailed
	case migrate.Lost:
		return exitLost
	default:
		return command.ExitOK
	}
}

// readAll reads all files before anything is made of any.
func readAll(paths []string, stdin io.Reader) ([]migrate.File, error) {
	limits := source.DefaultConfig()
	if len(paths) == 0 {
		content, err := io.ReadAll(io.LimitReader(stdin, limits.MaxFileBytes+1))
		if err == nil && int64(len(content)) > limits.MaxFileBytes {
			err = fmt.Errorf("standard input has more than %d bytes", limits.MaxFileBytes)
		}
		return []migrate.File{{Name: "stdin", Content: content}}, err
	}
	var out []migrate.File
	for _, path := range paths {
		found, err := source.List(path, limits.MaxFiles)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%s: there are no files (.yml, .yaml, .json)", path)
		}
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			content, err := source.ReadFile(f.Path, limits.MaxFileBytes)
			if err != nil {
				return nil, err
			}
			out = append(out, migrate.File{Name: f.Path, Content: content})
		}
	}
	return out, nil
}
