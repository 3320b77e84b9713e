package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/tocsin-rules/tocsin/ruler/backfill"
)

const (
	// barWidth is the number of characters of a full progress bar.
	barWidth = 30
	// barPause and linePause are the least times between two displays, on a
	// terminal and elsewhere.
	barPause  = 100 * time.Millisecond
	linePause = 10 * time.Second
)

// progressDisplay shows progress: on a terminal as a bar that moves, elsewhere
// as a line from time to time. It is used by one goroutine at a time.
type progressDisplay struct {
	w        io.Writer
	terminal bool
	began    time.Time
	shown    time.Time
}

func newProgressDisplay(w io.Writer) *progressDisplay {
	f, ok := w.(*os.File)
	return &progressDisplay{w: w, terminal: ok && term.IsTerminal(int(f.Fd())), began: time.Now()}
}

// show displays progress unless it has just done so. The end is always shown.
func (d *progressDisplay) show(p backfill.Progress) {
	pause := linePause
	if d.terminal {
		pause = barPause
	}
	now := time.Now()
	if now.Sub(d.shown) < pause && p.Done < p.Total {
		return
	}
	d.shown = now
	if d.terminal {
		fmt.Fprintf(d.w, "\r%s %s\x1b[K", progressBar(p), progressText(p, now.Sub(d.began)))
		return
	}
	fmt.Fprintln(d.w, progressText(p, now.Sub(d.began)))
}

// end leaves the bar where it is.
func (d *progressDisplay) end() {
	if d.terminal && !d.shown.IsZero() {
		fmt.Fprintln(d.w)
	}
}

func progressBar(p backfill.Progress) string {
	full := barWidth
	if p.Total > 0 {
		full = int(barWidth * p.Done / p.Total)
	}
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "]"
}

// progressText says how much is done, and how long the rest takes if it goes on
// as it did since this run began.
func progressText(p backfill.Progress, elapsed time.Duration) string {
	percent := int64(100)
	if p.Total > 0 {
		percent = 100 * p.Done / p.Total
	}
	text := fmt.Sprintf("%3d%% %d of %d evaluations, %d samples", percent, p.Done, p.Total, p.Samples)
	if done := p.Done - p.Resumed; done > 0 && p.Done < p.Total {
		left := time.Duration(float64(elapsed) / float64(done) * float64(p.Total-p.Done))
		text += fmt.Sprintf(", about %s left", left.Round(time.Second))
	}
	return text
}
