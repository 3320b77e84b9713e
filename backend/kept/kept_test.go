package kept_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/backend/kept"
)

func TestWhatIsUsedLeastIsForgottenFirst(t *testing.T) {
	t.Parallel()
	c := kept.New[int](10)
	c.Put("a", 1, 4)
	c.Put("b", 2, 4)
	require.Equal(t, 1, c.Get("a"))
	c.Put("c", 3, 4)
	require.Equal(t, []int{1, 0, 3}, []int{c.Get("a"), c.Get("b"), c.Get("c")})
	require.InDelta(t, 8, c.Weight(), 0)
	require.InDelta(t, 1, c.Forgotten(), 0)
}

func TestAValueIsReplaced(t *testing.T) {
	t.Parallel()
	c := kept.New[int](10)
	c.Put("a", 1, 9)
	c.Put("a", 2, 3)
	require.Equal(t, 2, c.Get("a"))
	require.InDelta(t, 3, c.Weight(), 0)
}

func TestWhatIsTooLargeIsNotKept(t *testing.T) {
	t.Parallel()
	c := kept.New[int](10)
	c.Put("a", 1, 5)
	c.Put("b", 2, 11)
	c.Put("a", 3, 11)
	require.Zero(t, c.Get("a")+c.Get("b"))
	require.Zero(t, c.Weight())
	require.InDelta(t, 2, c.Forgotten(), 0)
}
