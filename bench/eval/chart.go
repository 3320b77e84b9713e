package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// Sizes of the chart in pixels.
const (
	chartWidth = 900
	barsFrom   = 330
	barsWidth  = 480
	barHeight  = 22
	barStep    = 32
	barsTop    = 80
)

const (
	evaluatorColour = "#d1495b"
	storeColour     = "#30638e"
)

// chart draws the CPU time per rule evaluation of every variant of the first
// scenario as a bar.
func (r *run) chart(w io.Writer) {
	var bars []measurement
	largest := 0.0
	for _, m := range r.measurements {
		if m.scenario == r.measurements[0].scenario {
			bars = append(bars, m)
			largest = max(largest, costOf(m).cpu())
		}
	}
	height := barsTop + barStep*len(bars) + 10
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %d" font-family="sans-serif" font-size="13">`+"\n", chartWidth, height, height)
	fmt.Fprintln(w, `<rect width="100%" height="100%" fill="white"/>`)
	fmt.Fprintf(w, `<text x="20" y="30" font-size="16" font-weight="bold">CPU per rule evaluation, µs: %s series, %d rules</text>`+"\n", short(r.series), bars[0].rules)
	legend(w, barsFrom, evaluatorColour, "evaluator")
	legend(w, barsFrom+110, storeColour, "store")
	for i, m := range bars {
		bar(w, barsTop+barStep*i, m, largest)
	}
	fmt.Fprintln(w, "</svg>")
}

func legend(w io.Writer, x int, colour, what string) {
	fmt.Fprintf(w, `<rect x="%d" y="48" width="14" height="14" fill="%s"/><text x="%d" y="60">%s</text>`+"\n", x, colour, x+20, what)
}

// bar is one variant: evaluator and store after each other, then the sum.
func bar(w io.Writer, y int, m measurement, largest float64) {
	c := costOf(m)
	first, second := barsWidth*c.evaluator/largest, barsWidth*c.stores/largest
	base := y + barHeight - 6
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", barsFrom-10, base, escaped(m.name()))
	fmt.Fprintf(w, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, barsFrom, y, first, barHeight, evaluatorColour)
	fmt.Fprintf(w, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, barsFrom+first, y, second, barHeight, storeColour)
	fmt.Fprintf(w, `<text x="%.1f" y="%d">%.0f</text>`+"\n", barsFrom+first+second+6, base, c.cpu())
}

func escaped(s string) string {
	var b strings.Builder
	// A strings.Builder takes everything.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
