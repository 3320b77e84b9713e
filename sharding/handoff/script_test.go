package handoff

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScripts runs testdata: several members in one world. The commands are
//
//	boot a b c                 start members, without view and groups
//	view a b:joining [at=(a)]  tell members (all) how they see the cluster
//	groups g1 g2 [at=(a)]      tell members (all) which groups are loaded
//	commit slot=30s [at=(a)]   end a slot of all groups that run
//	run for=2s [quiet]         let time pass, a tick every half second
//	hold at=a g1               let the slot in progress of a group not end
//	finish at=a g1             let it end
//	cut a b c                  lose everything between the first and the rest
//	heal                       undo all cuts
//	crash a                    kill a member
//	drain a                    end a member in order
//	wake a                     tell a member that it was asleep
//	backend up|down|partly     whether states can be recovered
//	show                       print what all cores hold
//
// Each event is printed with its actions under it; messages arrive at once.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{world: newWorld()}
		s.trace = func(format string, args ...any) { fmt.Fprintf(&s.out, format, args...) }
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			s.command(t, d)
			if d.HasArg("quiet") {
				return ""
			}
			return s.out.String()
		})
	})
}

type script struct {
	*world
	out strings.Builder
}

func (s *script) command(t *testing.T, d *datadriven.TestData) {
	words := names(d)
	switch d.Cmd {
	case "boot":
		for _, name := range words {
			s.boot(name)
		}
	case "view":
		v, err := view(words)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		s.each(d, func(name string) { s.step(name, ViewChanged{View: v}) })
		s.deliver()
	case "groups":
		s.each(d, func(name string) { s.step(name, GroupsChanged{Keys: words}) })
		s.deliver()
	case "commit":
		slot := epoch.Add(duration(t, d, "slot"))
		s.each(d, func(name string) {
			s.commit(name, slot, slices.Sorted(maps.Keys(s.nodes[name].runs)))
		})
		s.deliver()
	case "run":
		s.run(duration(t, d, "for"), 500*time.Millisecond)
	case "show":
		s.out.WriteString(s.String())
	default:
		s.fault(t, d, words)
	}
}

func (s *script) fault(t *testing.T, d *datadriven.TestData, words []string) {
	switch d.Cmd {
	case "hold", "finish":
		s.each(d, func(name string) {
			for _, key := range words {
				s.nodes[name].held[key] = d.Cmd == "hold"
				s.finish(name, s.nodes[name], key)
			}
		})
		s.deliver()
	case "cut":
		for _, other := range words[1:] {
			s.cut[[2]string{min(words[0], other), max(words[0], other)}] = true
		}
	case "heal":
		clear(s.cut)
	case "crash":
		for _, name := range words {
			s.crash(name)
		}
	case "drain":
		s.step(words[0], Drain{})
		s.deliver()
	case "wake":
		for _, name := range words {
			s.step(name, Woke{})
		}
	case "backend":
		s.backendDown, s.backendPartly = words[0] == "down", words[0] == "partly"
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
}

// each calls f for the members in at=(...), or all.
func (s *script) each(d *datadriven.TestData, f func(name string)) {
	for _, arg := range d.CmdArgs {
		if arg.Key == "at" {
			for _, name := range arg.Vals {
				f(name)
			}
			return
		}
	}
	for _, name := range s.names() {
		f(name)
	}
}

// names are the arguments without a value.
func names(d *datadriven.TestData) []string {
	var words []string
	for _, arg := range d.CmdArgs {
		if len(arg.Vals) == 0 && arg.Key != "quiet" {
			words = append(words, arg.Key)
		}
	}
	return words
}

func duration(t *testing.T, d *datadriven.TestData, arg string) time.Duration {
	var text string
	d.ScanArgs(t, arg, &text)
	v, err := time.ParseDuration(text)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return v
}
