module github.com/xmpp-push/push/cluster/jetstream

go 1.26.0

require (
	github.com/nats-io/nats-server/v2 v2.15.2
	github.com/nats-io/nats.go v1.55.0
	github.com/stretchr/testify v1.12.1
	github.com/xmpp-push/push v0.0.0
)

replace github.com/xmpp-push/push => ../..
