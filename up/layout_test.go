package up

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	amconfig "github.com/prometheus/alertmanager/config"
	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
)

// TestLayouts runs testdata/layout: the input are command-line flags, one in
// a line, the output is what they lead to. "files" prints the configuration,
// "children" the processes, "ports" what must be free.
func TestLayouts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/layout", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			o := optionsFrom(t, d.Input)
			r, err := o.parse()
			if err != nil {
				return err.Error() + "\n"
			}
			here, err := os.Getwd()
			require.NoError(t, err)
			for i := range r.rules {
				r.rules[i] = strings.Replace(r.rules[i], here, "HERE", 1)
			}
			l := layout{request: r, node: d.HasArg("node")}
			switch d.Cmd {
			case "files":
				return printFiles(t, l)
			case "children":
				return printChildren(l)
			case "ports":
				return printPorts(l)
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

// defaults are what the command line has without flags.
func defaults() Options {
	return Options{PortBase: DefaultPortBase, Members: DefaultMembers, LogLevel: "info", LogFormat: "logfmt"}
}

func optionsFrom(t *testing.T, input string) Options {
	t.Helper()
	o := defaults()
	for line := range strings.Lines(input) {
		flag, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch flag {
		case "--members":
			_, err := fmt.Sscan(value, &o.Members)
			require.NoError(t, err)
		case "--port-base":
			_, err := fmt.Sscan(value, &o.PortBase)
			require.NoError(t, err)
		case "--backend":
			o.Backends = append(o.Backends, value)
		case "--alertmanager":
			o.Alertmanagers = append(o.Alertmanagers, value)
		case "--scrape":
			o.Scrapes = append(o.Scrapes, value)
		case "--rules":
			o.Rules = append(o.Rules, value)
		case "--data-dir":
			o.DataDir = value
		case "--ephemeral":
			o.Ephemeral = true
		default:
			require.Empty(t, flag, "unknown flag")
		}
	}
	return o
}

// printFiles also loads each file with the program that reads it.
func printFiles(t *testing.T, l layout) string {
	t.Helper()
	files, err := l.configFiles("DATA")
	require.NoError(t, err)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := string(files[name])
		fmt.Fprintf(&b, "-- %s --\n%s", name, content)
		switch {
		case name == "alertmanager.yml":
			_, err = amconfig.Load(content)
		case strings.HasPrefix(name, "collector-"):
			_, err = config.Load(content, slog.New(slog.DiscardHandler))
		}
		require.NoError(t, err, name)
	}
	return b.String()
}

func printChildren(l layout) string {
	var b strings.Builder
	for i, tier := range l.tiers("DATA", "tocsin") {
		fmt.Fprintf(&b, "tier %d\n", i)
		for _, c := range tier {
			fmt.Fprintf(&b, "  %s, ready when %s answers\n    %s\n", c.spec.Name, c.spec.ReadyURL,
				strings.Join(append([]string{c.spec.Path}, c.spec.Args...), "\n      "))
		}
	}
	return b.String()
}

func printPorts(l layout) string {
	var b strings.Builder
	for _, p := range l.ports() {
		fmt.Fprintf(&b, "%s %s %s\n", p.network, p.address, p.purpose)
	}
	return b.String()
}

func TestPortsOfALargestSystemAreDistinctAndInRange(t *testing.T) {
	t.Parallel()
	o := defaults()
	o.Members = maxMembers
	for i := range maxClusters {
		o.Backends = append(o.Backends, fmt.Sprintf("c%d=http://127.0.0.1:%d", i, i+1))
	}
	r, err := o.parse()
	require.NoError(t, err)
	named := layout{request: r}
	r.named = nil // the same clusters, embedded
	seen := map[string]string{}
	for _, p := range (layout{request: r}).ports() {
		key := p.network + " " + p.address
		require.Empty(t, seen[key], p.purpose)
		seen[key] = p.purpose
		var port int
		_, err := fmt.Sscanf(p.address, "127.0.0.1:%d", &port)
		require.NoError(t, err)
		require.Less(t, port, DefaultPortBase+portSpan)
	}
	require.Less(t, len(named.ports()), len(seen), "given backends need no ports")
}
