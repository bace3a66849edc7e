module github.com/xmpp-push/push/examples/embed

go 1.25.0

require github.com/xmpp-push/push v0.0.0

require (
	golang.org/x/net v0.29.0 // indirect
	golang.org/x/text v0.18.0 // indirect
	mellium.im/reader v0.1.0 // indirect
	mellium.im/xmlstream v0.15.4 // indirect
	mellium.im/xmpp v0.22.0 // indirect
)

replace github.com/xmpp-push/push => ../..
