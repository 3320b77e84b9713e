package rule

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

func TestSetRefusesAKeyTwiceAndNamesBothFiles(t *testing.T) {
	t.Parallel()
	var s Set
	require.NoError(t, s.Add("/rules/b.yml", []Group{{Key: "b", Rules: make([]Rule, 2)}}))
	require.NoError(t, s.Add("/rules/a.yml", []Group{{Key: "a", Rules: make([]Rule, 3)}}))
	err := s.Add("/rules/c.yml", []Group{{Key: "c"}, {Key: "b", Name: "x"}})
	require.EqualError(t, err, `group "x" with key "b" is defined in /rules/b.yml and in /rules/c.yml`)
	require.Equal(t, []string{"a", "b"}, keysOf(s.Groups()), "all or none of a file, sorted")
	require.Equal(t, 5, CountRules(s.Groups()))
}

func TestTheFileIsInTheKeyOnlyToTellGroupsApart(t *testing.T) {
	t.Parallel()
	file := func(name, group string) []Group {
		return []Group{{Key: "file/" + name + "/" + escape(group), Name: group, File: name + ".yml"}}
	}
	var s Set
	require.NoError(t, s.Add("a.yml", file("team/a", "cpu")))
	require.NoError(t, s.Add("b.yml", file("team/b", "a/cpu")))
	require.NoError(t, s.Add("c.yml", file("c", "disk")))
	require.NoError(t, s.Add("d.yml", file("d", "disk")))
	require.NoError(t, s.Add("e.yml", []Group{{Key: "globalrules/a/cpu", Name: "cpu"}}))
	require.Equal(t, []string{"file/a%2Fcpu", "file/c/disk", "file/cpu", "file/d/disk", "globalrules/a/cpu"}, keysOf(s.Groups()))
}

func keysOf(groups []Group) []string {
	var keys []string
	for _, g := range groups {
		keys = append(keys, g.Key)
	}
	return keys
}

func TestDuplicatesAreRulesOfOneIdentityInOneScope(t *testing.T) {
	t.Parallel()
	gold := labels.FromStrings("tier", "gold")
	groups := []Group{
		{Rules: []Rule{{Record: "x", Labels: gold}, {Record: "x"}, {Alert: "x"}, {Alert: "A"}}},
		{Rules: []Rule{{Record: "x", Labels: gold}, {Record: "x", Labels: gold}, {Alert: "A"}}},
		{Rules: []Rule{{Record: "x"}}, Scope: labels.FromStrings("cluster", "east")},
	}
	require.Equal(t, []string{`alert A{}`, `record x{tier="gold"}`}, Duplicates(groups))
	groups = append(groups, groups[2])
	require.Equal(t, []string{`record x{} in {cluster="east"}`}, Duplicates(groups[2:]))
	require.Empty(t, Duplicates(groups[:1]))
}
