package web

import (
	"bufio"
	"encoding/json"
	"net/http"
)

// joined is an answer made of parts that are encoded already.
type joined struct {
	lists     []list
	nextToken string
	warnings  []string
}

// list is a field of an answer.
type list struct {
	name  string
	parts []Part
}

// send writes the envelope of Prometheus' API around the parts, without copying
// them.
func (h *Handler) send(w http.ResponseWriter, j joined) {
	w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriter(w)
	j.write(b)
	if err := b.Flush(); err != nil {
		h.deps.Logger.Debug("sending API answer", "err", err)
	}
}

// write leaves errors to Flush, which repeats the first.
func (j joined) write(b *bufio.Writer) {
	separator := `{"status":"success","data":{`
	for _, l := range j.lists {
		_, _ = b.WriteString(separator + text(l.name) + ":[")
		l.write(b)
		_ = b.WriteByte(']')
		separator = ","
	}
	if j.nextToken != "" {
		_, _ = b.WriteString(`,"groupNextToken":` + text(j.nextToken))
	}
	_ = b.WriteByte('}')
	if len(j.warnings) > 0 {
		_, _ = b.WriteString(`,"warnings":` + text(j.warnings))
	}
	_ = b.WriteByte('}')
}

func (l list) write(b *bufio.Writer) {
	first := true
	for _, p := range l.parts {
		if len(p.JSON) == 0 {
			continue
		}
		if !first {
			_ = b.WriteByte(',')
		}
		first = false
		_, _ = b.Write(p.JSON)
	}
}

// text encodes strings, of which none is refused.
func text[T string | []string](s T) string {
	encoded, err := json.Marshal(s)
	if err != nil {
		return "null"
	}
	return string(encoded)
}
