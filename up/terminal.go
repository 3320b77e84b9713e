package up

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/tocsin-rules/tocsin/up/screen"
)

// summaryInterval is how often the whole state is written where there is no
// terminal.
const summaryInterval = 30 * time.Second

// display shows states one after the other. It is used by one goroutine.
type display interface {
	show(s screen.State, now time.Time)
}

// newDisplay returns a block that is drawn again in place if out is a
// terminal, and lines otherwise.
func newDisplay(out io.Writer) display {
	f, ok := out.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		return &block{
			out: out, color: os.Getenv("NO_COLOR") == "",
			size: func() (int, int, error) { return term.GetSize(int(f.Fd())) },
		}
	}
	return &lineLog{out: out}
}

// lineLog writes a line for each change, and a summary now and then.
type lineLog struct {
	out        io.Writer
	last       screen.State
	summarised time.Time
}

func (l *lineLog) show(s screen.State, now time.Time) {
	for _, line := range screen.Changes(l.last, s) {
		l.line(now, line)
	}
	l.last = s
	if s.Phase == screen.Running && now.Sub(l.summarised) >= summaryInterval {
		l.line(now, screen.Summary(s))
		l.summarised = now
	}
}

func (l *lineLog) line(now time.Time, text string) {
	fmt.Fprintf(l.out, "%s %s\n", now.Format(time.TimeOnly), text)
}

// block draws the status over the one before.
type block struct {
	out   io.Writer
	color bool
	// size returns columns and rows.
	size  func() (int, int, error)
	drawn int
}

// The control sequences that are used: erase to the end of line or screen,
// cursor up, and the looks of a line.
const (
	eraseLine   = "\x1b[K"
	eraseScreen = "\x1b[J"
	cursorUp    = "\x1b[%dA"
	resetLook   = "\x1b[0m"
)

var looks = map[screen.Style]string{
	screen.Heading: "\x1b[1m", screen.Good: "\x1b[32m", screen.Bad: "\x1b[31m",
}

func (b *block) show(s screen.State, _ time.Time) {
	width, height, err := b.size()
	if err != nil || width <= 0 || height <= 1 {
		width, height = 80, 24
	}
	lines := screen.Block(s, width)
	lines = lines[:min(len(lines), height-1)] // a taller block could not be drawn over
	var out strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&out, cursorUp, min(b.drawn, height-1))
	}
	for _, l := range lines {
		out.WriteString("\r" + b.look(l) + eraseLine + "\n")
	}
	out.WriteString(eraseScreen)
	b.drawn = len(lines)
	fmt.Fprint(b.out, out.String())
}

func (b *block) look(l screen.Line) string {
	if look := looks[l.Style]; b.color && look != "" {
		return look + l.Text + resetLook
	}
	return l.Text
}
