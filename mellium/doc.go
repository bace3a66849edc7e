// Package mellium puts push on sessions of mellium.im/xmpp: handlers for its mux that answer clients' requests and take affiliation notices (XEP-0357
// §8: a push service revokes a registration), and a Publisher over a session. A host that routes stanzas itself does not need it, and does not link
// what a session needs.
package mellium
