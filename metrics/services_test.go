package metrics

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestServices(t *testing.T) {
	s := Services{Listed: []string{"push.example.net"}, Max: 2}
	assert.Equal(t, "push.example.net", s.Name("push.example.net"))
	assert.Equal(t, Other, s.Name("a.example"))
	s.Accepted("\xff.example")
	assert.Equal(t, Other, s.Name("\xff.example"))
	s.Accepted("a.example")
	assert.Equal(t, "a.example", s.Name("a.example"))
	for i := range 1000 {
		s.Accepted(fmt.Sprint(i))
	}
	named := 0
	for i := range 1000 {
		if s.Name(fmt.Sprint(i)) != Other {
			named++
		}
	}
	assert.Equal(t, 1, named)
	assert.Equal(t, "push.example.net", s.Name("push.example.net"))
}
