package gossip

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// readBounded reads a file that is not larger than limit.
func readBounded(file string, limit int) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", file, err)
	}
	if len(text) > limit {
		return nil, fmt.Errorf("%q is larger than %d bytes", file, limit)
	}
	return text, nil
}

// entries are the lines of a file, without space around them; empty lines and
// those that begin with # are none.
func entries(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}
