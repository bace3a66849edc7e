// Package pushhttp answers the question why a phone did not ring: pages on which an operator looks up an account, sees its devices and
// sessions, and for each message who was notified, who was not, and why, down to the push service's reply.
//
//	history := pushhttp.NewHistory(pushhttp.HistoryConfig{})
//	engine, err := push.New(push.Config{…, Observer: history.Observer()})
//	pages, err := pushhttp.New(pushhttp.Config{Engine: engine, History: history, Authorize: authorize})
//	mux.Handle("/admin/push/", pages)
//
// The pages are plain HTML with a style sheet and a script of their own, work under any prefix and without the script, and ask
// nothing of any other server. They are sent with a Content-Security-Policy that allows nothing inline.
//
// Access is the host's affair: every request is refused for which Config.Authorize does not say who asks. Bodies of messages and values of
// publish options are never kept, so no page can show them. JIDs can be shown as pseudonyms.
package pushhttp
