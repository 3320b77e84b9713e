package render

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// server is what the API server has.
type server map[string]*corev1.ConfigMap

// write does what is pending, as the controller does, and returns the names of
// what was written and of what was deleted.
func (s server) write(p *Parts) (written, removed []string) {
	write, remove := p.Pending()
	for _, m := range write {
		s[m.Name] = m.DeepCopy()
		written = append(written, m.Name)
		p.Done(m.Name)
	}
	for _, name := range remove {
		delete(s, name)
		p.Done(name)
	}
	return written, remove
}

func (s server) list() []corev1.ConfigMap {
	var out []corev1.ConfigMap
	for _, m := range s {
		out = append(out, *m)
	}
	return out
}

// TestParts runs the scripts in testdata/parts, over rule files of which only
// the sizes count and parts that take 100 bytes.
//
//	put KEY=SIZE...     renders, so to say, and writes what changed
//	remove KEY...
//	restart [gzip]      a new operator, with nothing but what the server has
//	edit NAME [delete]  somebody else changes or deletes a ConfigMap, and the operator sees it
//	show                what the server has
func TestParts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/parts", func(t *testing.T, path string) {
		options := PartsOptions{Namespace: "gmp-system", Bytes: 100}
		parts, api := NewRuleParts(options), server{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			switch d.Cmd {
			case "put":
				for _, a := range d.CmdArgs {
					var size int
					d.ScanArgs(t, a.Key, &size)
					if err := parts.Put(Piece{Key: a.Key, Text: []byte(strings.Repeat("x", size))}); err != nil {
						fmt.Fprintln(&out, err)
					}
				}
			case "remove":
				for _, a := range d.CmdArgs {
					parts.Remove(a.Key)
				}
			case "restart":
				options.Gzip = d.HasArg("gzip")
				parts = NewRuleParts(options)
				if err := parts.Recover(api.list()); err != nil {
					fmt.Fprintln(&out, err)
				}
			case "edit":
				name := d.CmdArgs[0].Key
				if d.HasArg("delete") {
					delete(api, name)
				} else {
					api[name].BinaryData = map[string][]byte{"a": []byte(gzipMagic + "?")}
				}
				parts.Seen(name, api[name])
			case "show":
				return api.String()
			}
			written, removed := api.write(parts)
			for _, name := range written {
				fmt.Fprintln(&out, "wrote", name)
			}
			for _, name := range removed {
				fmt.Fprintln(&out, "deleted", name)
			}
			if out.Len() == 0 {
				return "nothing\n"
			}
			return out.String()
		})
	})
}

// String has a line for each ConfigMap: its keys and their sizes.
func (s server) String() string {
	var lines []string
	for name, m := range s {
		line := name + ":"
		values, err := valuesOf(m)
		if err != nil {
			line += " " + err.Error()
		}
		var keys []string
		for key, value := range values {
			keys = append(keys, fmt.Sprintf(" %s=%d", key, len(value)))
		}
		slices.Sort(keys)
		line += strings.Join(keys, "")
		if len(m.BinaryData) > 0 {
			line += " in binary"
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestOneChangeChangesOnePart: of a thousand resources, whichever changes, one
// ConfigMap is written, and an operator that starts anew writes none.
func TestOneChangeChangesOnePart(t *testing.T) {
	t.Parallel()
	for gzip, resources := range map[bool]int{false: 1000, true: 100} {
		t.Run(fmt.Sprintf("gzip=%t", gzip), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			r := New(testSettings(), nil)
			options := PartsOptions{Namespace: "gmp-system", Gzip: gzip}
			parts, api := NewScrapeParts(options), server{}
			monitorings := make([]*v1.PodMonitoring, resources)
			for i := range monitorings {
				monitorings[i] = randomMonitoring(random, i)
				put(t, parts, r, monitorings[i])
			}
			written, _ := api.write(parts)
			require.Greater(t, len(written), resources/50)
			for range 50 {
				m := monitorings[random.IntN(len(monitorings))]
				change(random, m)
				put(t, parts, r, m)
				written, removed := api.write(parts)
				require.Len(t, written, 1)
				require.Empty(t, removed)
			}
			again := NewScrapeParts(options)
			require.NoError(t, again.Recover(api.list()))
			require.Equal(t, parts.Keys(), again.Keys())
			require.Equal(t, parts.Secrets(), again.Secrets())
			for _, m := range monitorings[:100] {
				put(t, again, r, m)
			}
			written, removed := api.write(again)
			require.Empty(t, written)
			require.Empty(t, removed)
			requireJobs(t, api, monitorings)
		})
	}
}

// change does to a resource what its author may: another path, one rule more.
func change(random *rand.Rand, m *v1.PodMonitoring) {
	e := &m.Spec.Endpoints[random.IntN(len(m.Spec.Endpoints))]
	if random.IntN(2) == 0 {
		e.Path += "/deeper"
		return
	}
	e.MetricRelabeling = append(e.MetricRelabeling, v1.RelabelingRule{Action: "keep", SourceLabels: []string{"__name__"}, Regex: "kept_.*"})
}

func put(t *testing.T, p *Parts, r *Renderer, m *v1.PodMonitoring) {
	piece, err := r.PodMonitoring(m)
	require.NoError(t, err)
	require.NoError(t, p.Put(piece))
}

// requireJobs reads what the server has as collectors do: Prometheus' loader
// takes each part, and together they have the jobs of all resources.
func requireJobs(t *testing.T, api server, monitorings []*v1.PodMonitoring) {
	got := map[string]bool{}
	for _, m := range api {
		values, err := valuesOf(m)
		require.NoError(t, err)
		require.Less(t, len(values[scrapeKey]), 2*DefaultPartBytes+len(monitorings)*100)
		cfg, err := config.Load(string(values[scrapeKey]), nil)
		require.NoError(t, err)
		for _, job := range cfg.ScrapeConfigs {
			require.False(t, got[job.JobName], job.JobName)
			got[job.JobName] = true
		}
	}
	for _, m := range monitorings {
		for _, e := range m.Spec.Endpoints {
			delete(got, m.GetKey()+"/"+e.Port.String())
		}
	}
	require.Empty(t, got)
}
