package jetstream

import (
	"context"

	"github.com/xmpp-push/push"
)

// alone decides for a node that cannot reach the log.
type alone struct{ n *Node }

func newAlone(n *Node) *alone                               { return &alone{n} }
func (a *alone) decide(ev push.Event) (push.Decision, bool) { return push.Decision{}, false }
func (a *alone) know(r registered)                          {}
func (a *alone) report()                                    {}
func (a *alone) close(ctx context.Context)                  {}
