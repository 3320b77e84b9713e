package render

import (
	"regexp"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
)

// Rules leave out what they don't need, as separators and the regular
// expression that matches everything, so that the bytes are short and easy to
// read.

// keepIf keeps targets whose labels, joined by semicolons, match.
func keepIf(regex relabel.Regexp, sources ...string) *relabel.Config {
	return &relabel.Config{SourceLabels: names(sources), Regex: regex, Action: relabel.Keep}
}

// dropIf drops targets whose labels, joined by semicolons, match.
func dropIf(regex relabel.Regexp, sources ...string) *relabel.Config {
	return &relabel.Config{SourceLabels: names(sources), Regex: regex, Action: relabel.Drop}
}

// copyLabel sets target to the value of source.
func copyLabel(target, source string) *relabel.Config {
	return &relabel.Config{SourceLabels: names([]string{source}), Regex: anything, TargetLabel: target, Action: relabel.Replace}
}

// setLabel sets target to a value, whatever characters that has.
func setLabel(target, value string) *relabel.Config {
	return &relabel.Config{Regex: anything, TargetLabel: target, Replacement: literal(value), Action: relabel.Replace}
}

// rewrite sets target to the replacement, "" meaning the first group, if the
// sources match.
func rewrite(target, replacement string, regex relabel.Regexp, sources ...string) *relabel.Config {
	return &relabel.Config{SourceLabels: names(sources), Regex: regex, TargetLabel: target, Replacement: replacement, Action: relabel.Replace}
}

// anything is left out when it is written.
var anything = relabel.DefaultRelabelConfig.Regex

// exactly matches the texts and nothing else; not to be used with an empty one
// alone, which would be left out. What is no UTF-8, which no label can hold and
// no regular expression either, is replaced as JSON's encoding does.
func exactly(texts ...string) relabel.Regexp {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = regexp.QuoteMeta(strings.ToValidUTF8(t, "\uFFFD"))
	}
	return relabel.MustNewRegexp(strings.Join(quoted, "|"))
}

// ofUser compiles what a user wrote: alone first, so that nothing leaves the
// anchors around it and the error quotes no more than that.
func ofUser(text string) (relabel.Regexp, error) {
	if _, err := regexp.Compile(text); err != nil {
		return relabel.Regexp{}, err
	}
	return relabel.NewRegexp(text)
}

// literal escapes a text for use as a replacement.
func literal(text string) string { return strings.ReplaceAll(text, "$", "$$") }

func names(texts []string) (out model.LabelNames) {
	for _, t := range texts {
		out = append(out, model.LabelName(t))
	}
	return out
}
