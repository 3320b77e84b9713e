package screen

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestScripts runs testdata: "state" takes the next state as JSON, "block",
// "changes" and "summary" print what is shown of it.
func TestScripts(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var before, now State
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "state":
				before, now = now, State{}
				require.NoError(t, json.Unmarshal([]byte(d.Input), &now))
				return ""
			case "block":
				width := 100
				d.MaybeScanArgs(t, "width", &width)
				return printed(t, Block(now, width), width)
			case "changes":
				return strings.Join(append(Changes(before, now), ""), "\n")
			case "summary":
				return Summary(now) + "\n"
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

func printed(t *testing.T, lines []Line, width int) string {
	marks := map[Style]string{Plain: "  ", Heading: "# ", Good: "+ ", Bad: "! "}
	var b strings.Builder
	for _, l := range lines {
		require.LessOrEqual(t, utf8.RuneCountInString(l.Text), width)
		b.WriteString(marks[l.Style] + l.Text + "|\n")
	}
	return b.String()
}

func TestTextFromOutsideCannotDriveTheTerminal(t *testing.T) {
	t.Parallel()
	s := State{Notified: 1, Notifications: []Notification{{Name: "A\x1b[2J", Labels: []string{"x=a\nb\x07"}}}}
	for _, l := range Block(s, 80) {
		require.NotContains(t, l.Text, "\x1b")
		require.NotContains(t, l.Text, "\x07")
		require.NotContains(t, l.Text, "\n")
	}
	require.Equal(t, "FIRING A\uFFFD[2J x=a b\uFFFD", Changes(State{}, s)[0])
}
