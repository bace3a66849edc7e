package metrics

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEventsAreAll(t *testing.T) {
	source, err := os.ReadFile("../events.go")
	require.NoError(t, err)
	var names []string
	for _, m := range regexp.MustCompile(`Name\(\) string +\{ return "([a-z-]+)" \}`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
	}
	require.Greater(t, len(names), 15)
	assert.ElementsMatch(t, names, Events)
	assert.Greater(t, len(Reasons()), 40)
	assert.True(t, slices.IsSorted(Reasons()))
}
