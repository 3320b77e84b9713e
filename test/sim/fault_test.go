package sim_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// script is what happens in one simulation. Its text form is that of the files
// under testdata: a line for the cluster, then one for each event, with the
// time since the start.
type script struct {
	// seed decides how long messages, noticing and rounds take.
	seed    uint64
	members int
	groups  int
	// careful scripts leave backends and messages alone, and members die only
	// while enough others are there that know what they knew.
	careful bool
	// lasts is how long things happen; then all is put right.
	lasts  time.Duration
	events []event
}

type event struct {
	at   time.Duration
	verb string
	args []string
}

func (e event) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", e.at, e.verb, strings.Join(e.args, " ")))
}

func (s script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed=%d members=%d groups=%d careful=%t lasts=%s\n", s.seed, s.members, s.groups, s.careful, s.lasts)
	for _, e := range s.events {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}

func readScript(file string) (script, error) {
	var s script
	f, err := os.Open(file)
	if err != nil {
		return s, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case s.members == 0:
			var lasts string
			if _, err := fmt.Sscanf(line, "seed=%d members=%d groups=%d careful=%t lasts=%s", &s.seed, &s.members, &s.groups, &s.careful, &lasts); err != nil {
				return s, fmt.Errorf("%s: %q: %w", file, line, err)
			}
			if s.lasts, err = time.ParseDuration(lasts); err != nil {
				return s, err
			}
		default:
			words := strings.Fields(line)
			at, err := time.ParseDuration(words[0])
			if err != nil || len(words) < 2 {
				return s, fmt.Errorf("%s: %q is not a time and a verb", file, line)
			}
			s.events = append(s.events, event{at, words[1], words[2:]})
		}
	}
	return s, lines.Err()
}

// randomScript makes a script of a seed: mostly small clusters, sometimes
// large ones.
func randomScript(seed uint64) script {
	r := rand.New(rand.NewPCG(seed, 1))
	s := script{seed: seed, careful: seed%2 == 0, members: 3 + r.IntN(5), groups: 4 + r.IntN(40), lasts: time.Duration(4+r.IntN(8)) * time.Minute}
	if r.IntN(20) == 0 {
		s.members, s.groups = 20+r.IntN(31), 200+r.IntN(1801)
		s.lasts = 3 * time.Minute
	}
	at := time.Duration(0)
	for {
		at += time.Duration(r.Int64N(int64(20 * time.Second))).Truncate(time.Millisecond)
		if at >= s.lasts {
			return s
		}
		if e := randomEvent(r, at, s.members); !s.careful || !slices.Contains([]string{"fail", "slow", "isolate", "cut", "loss"}, e.verb) {
			s.events = append(s.events, e)
		}
	}
}

func randomEvent(r *rand.Rand, at time.Duration, members int) event {
	m := func() string { return fmt.Sprintf("m%d", r.IntN(members)) }
	backend := func() string { return fmt.Sprintf("b%d", r.IntN(backends)) }
	e := func(verb string, args ...string) event { return event{at, verb, args} }
	switch r.IntN(16) {
	case 0, 1, 2:
		return e("crash", m())
	case 3, 4, 5:
		return e("join", m())
	case 6:
		return e("leave", m())
	case 7:
		one := r.IntN(members)
		return e("cut", fmt.Sprintf("m%d", one), fmt.Sprintf("m%d", (one+1+r.IntN(members-1))%members))
	case 8:
		return e("isolate", m())
	case 9:
		return e("heal")
	case 10:
		return e("fail", backend())
	case 11:
		return e("slow", backend(), fmt.Sprint(time.Duration(r.IntN(8))*time.Second))
	case 12:
		return e("mend", backend())
	case 13:
		return e("loss", fmt.Sprintf("%.2f", r.Float64()*0.4))
	case 14:
		return e("skew", m(), fmt.Sprint(time.Duration(r.IntN(9)-4)*time.Second))
	default:
		return e("edit", fmt.Sprint(r.IntN(1000)))
	}
}
