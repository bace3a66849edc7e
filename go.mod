module github.com/xmpp-push/push

go 1.25.0

require mellium.im/xmpp v0.22.0
