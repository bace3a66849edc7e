module github.com/xmpp-push/push

go 1.25.0

require mellium.im/xmpp v0.22.0

require (
	github.com/stretchr/testify v1.12.1 // indirect
	pgregory.net/rapid v1.3.0 // indirect
)
