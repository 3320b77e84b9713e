package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/operator/render"
)

func TestOnlyNewsChangesAStatus(t *testing.T) {
	t.Parallel()
	const kind = v1.ConfigurationCreateSuccess
	at := func(minutes int) time.Time { return time.Date(2026, 1, 1, 0, minutes, 0, 0, time.UTC) }
	var s v1.MonitoringStatus
	good, bad := findingOf(kind, reasonScrape, nil), findingOf(kind, reasonScrape, errors.New("spec: no"))

	require.True(t, report(&s, 1, at(0), good))
	require.False(t, report(&s, 1, at(1), good), "the same again")
	require.True(t, report(&s, 2, at(2), good), "another generation")
	require.Equal(t, at(0), s.Conditions[0].LastUpdateTime.Time)

	require.True(t, report(&s, 2, at(3), bad))
	require.Equal(t, "spec: no", s.Conditions[0].Message)
	require.Equal(t, at(3), s.Conditions[0].LastTransitionTime.Time)

	worse := findingOf(kind, reasonScrape, errors.New("spec: no, no"))
	require.True(t, report(&s, 2, at(4), worse), "another message")
	require.Equal(t, at(3), s.Conditions[0].LastTransitionTime.Time, "the status has not changed")
	require.Equal(t, at(4), s.Conditions[0].LastUpdateTime.Time)

	require.True(t, report(&s, 2, at(5), finding{kind: v1.AlertmanagerConfigurationSuccess, ok: true}))
	require.Len(t, s.Conditions, 2)
	require.Equal(t, kind, s.Conditions[0].Type)
}

func TestReasonsAndLengthsOfMessages(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("wrapped: %w", &secretError{key: render.SecretKey{Kind: render.KindSecret, Namespace: "a", Name: "b", Key: "c"}, cause: "gone"})
	require.Equal(t, reasonSecret, findingOf(v1.ConfigurationCreateSuccess, reasonScrape, err).reason)

	line := strings.Repeat("x", 99) + "\n"
	message := findingOf(v1.ConfigurationCreateSuccess, reasonRules, errors.New(strings.Repeat(line, 1000))).message
	require.LessOrEqual(t, len(message), maxMessageBytes)
	require.True(t, strings.HasSuffix(message, "x\n..."), "cut between lines")
	require.Equal(t, "short", shortened("short"))
}
