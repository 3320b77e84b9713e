package collector

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// documents is a source with a part for each text, named a, b, c and so on.
type documents []string

func (d documents) Documents() (Documents, error) {
	docs := Documents{Base: Document{Name: "base", Content: []byte("scrape_configs: [{job_name: base}]")}}
	for i, text := range d {
		docs.Parts = append(docs.Parts, Document{Name: string(rune('a' + i)), Content: []byte("scrape_configs: " + text)})
	}
	return docs, nil
}

func (d documents) Fingerprint() string { return fmt.Sprint([]string(d)) }
func (d documents) String() string      { return "parts" }

func intervals(a *assembly) map[string]string {
	jobs := map[string]string{}
	for _, sc := range a.ScrapeConfigs {
		jobs[sc.JobName] = sc.ScrapeInterval.String()
	}
	return jobs
}

func TestAFaultyScrapeConfigOfAPartIsRefusedAlone(t *testing.T) {
	t.Parallel()
	before, err := load(documents{
		"[{job_name: x, scrape_interval: 10s}, {job_name: y, scrape_interval: 10s}]", "[{job_name: z, scrape_interval: 10s}]",
	}, Terms{}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Empty(t, before.refused)
	require.Equal(t, map[string]string{"base": "1m", "x": "10s", "y": "10s", "z": "10s"}, intervals(before))

	const good = "{job_name: z, scrape_interval: 20s}"
	for name, tc := range map[string]struct {
		parts documents
		jobs  map[string]string
		pool  string
		err   string
	}{
		"an unknown field": {
			documents{"[{job_name: x, scrape_interval: 20s}, {job_name: y, scrape_intervall: 20s}]", "[" + good + "]"},
			map[string]string{"x": "20s", "y": "10s", "z": "20s"},
			"y", "a: yaml: unmarshal errors:\n  line 1: field scrape_intervall not found",
		},
		"a timeout that is longer than the interval": {
			documents{"[{job_name: y, scrape_interval: 10s, scrape_timeout: 20s}]", "[" + good + "]"},
			map[string]string{"y": "10s", "z": "20s"},
			"y", "scrape timeout greater than scrape interval",
		},
		"a client certificate without a key": {
			documents{"[{job_name: new, tls_config: {cert_file: tls.crt}}]", "[" + good + "]"},
			map[string]string{"z": "20s"},
			"new", "exactly one of key or key_file",
		},
		"a secret of a manager that is not there": {
			documents{"[{job_name: new, authorization: {credentials_ref: token}}]", "[" + good + "]"},
			map[string]string{"z": "20s"},
			"new", "cannot use secret ref without manager",
		},
		"a node's name that nobody knows": {
			documents{"[{job_name: x, kubernetes_sd_configs: [{role: pod, selectors: [{role: pod, field: spec.nodeName=$(NODE_NAME)}]}]}]", "[" + good + "]"},
			map[string]string{"x": "10s", "z": "20s"},
			"x", "set --node.name",
		},
		"a document that is cut off": {
			documents{"[{job_name: x", "[" + good + "]"},
			map[string]string{"x": "10s", "y": "10s", "z": "20s"},
			"", "a: yaml: line 1",
		},
		"no name": {
			documents{"[{scrape_interval: 1s}]", "[" + good + "]"},
			map[string]string{"z": "20s"},
			"", "job_name is empty",
		},
		"a job that two parts have in different ways": {
			documents{"[{job_name: x, scrape_interval: 20s}]", "[{job_name: x, scrape_interval: 30s}, " + good + "]"},
			map[string]string{"x": "20s", "z": "20s"},
			"x", "b: another scrape config of this job_name is in a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			after, err := load(tc.parts, Terms{}, before, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			tc.jobs["base"] = "1m"
			require.Equal(t, tc.jobs, intervals(after))
			require.Equal(t, slices.Sorted(maps.Keys(tc.jobs)), slices.Sorted(maps.Keys(after.document)))
			require.Len(t, after.refused, 1)
			require.Equal(t, tc.pool, after.refused[0].Pool)
			require.ErrorContains(t, after.refused[0].Err, tc.err)
			require.ErrorContains(t, CheckConfig(tc.parts, Terms{}), tc.err)

			repaired, err := load(documents{"[]", "[" + good + "]"}, Terms{}, after, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			require.Empty(t, repaired.refused)
			require.Equal(t, map[string]string{"base": "1m", "z": "20s"}, intervals(repaired))
		})
	}
}

func TestACertificateThatIsMissingIsAFaultForWhoeverChecks(t *testing.T) {
	t.Parallel()
	parts := documents{"[{job_name: x, tls_config: {ca_file: missing.pem}}]"}
	a, err := load(parts, Terms{}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Empty(t, a.refused)
	require.ErrorContains(t, CheckConfig(parts, Terms{}), `scrape config "x": a: unable to read CA cert: unable to read file missing.pem`)
}

func TestAJobThatMovesFromPartToPartMayBeInBoth(t *testing.T) {
	t.Parallel()
	a, err := load(documents{"[{job_name: x}]", "[{job_name: x}]"}, Terms{}, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Empty(t, a.refused)
	require.Equal(t, map[string]string{"base": "1m", "x": "1m"}, intervals(a))
}
