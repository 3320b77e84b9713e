package gossip

import (
	"context"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// logWriter turns memberlist's lines, "[LEVEL] memberlist: text", into
// structured ones. Messages that memberlist threw away are told nowhere but in
// its log, so they are counted here.
type logWriter struct {
	logger   *slog.Logger
	rejected *prometheus.CounterVec
}

var levels = map[string]slog.Level{
	"[DEBUG]": slog.LevelDebug,
	"[INFO]":  slog.LevelInfo,
	"[WARN]":  slog.LevelWarn,
	"[ERR]":   slog.LevelError,
	"[ERROR]": slog.LevelError,
}

// rejections are parts of the lines that say that a message was thrown away.
var rejections = []struct{ text, reason string }{
	{"unacceptable label", reasonLabel},
	{"label header", reasonLabel},
	{"Decrypt packet failed", reasonKey},
	{"could decrypt the message", reasonKey},
	{"encryption is configured but", reasonKey},
	{"encryption is not configured", reasonKey},
	{"Failed to decode", reasonGarbage},
	{"not supported", reasonGarbage},
	{"invalid msgType", reasonGarbage},
	{"invalid checksum", reasonGarbage},
	{"message type byte", reasonGarbage},
	{"packet too short", reasonGarbage},
	{"truncated messages", reasonGarbage},
	{"failed to receive", reasonGarbage},
	{"Failed to receive user message", reasonGarbage},
	{"Failed to read remote state", reasonGarbage},
}

// Write takes one line.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := slog.LevelInfo, strings.TrimSpace(string(line))
	if word, rest, ok := strings.Cut(text, " "); ok {
		if l, known := levels[word]; known {
			level, text = l, strings.TrimPrefix(rest, "memberlist: ")
		}
	}
	for _, r := range rejections {
		if strings.Contains(text, r.text) {
			w.rejected.WithLabelValues(r.reason).Inc()
			// Anybody who reaches the port can cause these.
			level = min(level, slog.LevelWarn)
			break
		}
	}
	w.logger.Log(context.Background(), level, "gossip", "detail", text)
	return len(line), nil
}
