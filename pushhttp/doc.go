// Package pushhttp answers the question why a phone did not ring: pages on which an operator looks up an account and sees for each message what
// became of it for each device, in a sentence, down to the push service's reply.
//
//	history := pushhttp.NewHistory(pushhttp.HistoryConfig{})
//	engine, err := push.New(push.Config{…, Observer: history.Observer()})
//	pages, err := pushhttp.New(pushhttp.Config{Engine: engine, History: history, Authorize: authorize})
//	mux.Handle("/admin/push/", pages)
//
// The pages are plain HTML with a style sheet and a script of their own, work under any prefix and without the script, and ask
// nothing of any other server. They are sent with a Content-Security-Policy that allows nothing inline. Each is JSON, too, for those that ask with
// Accept: application/json; the README has the fields.
//
// Access is the host's affair: every request is refused for which Config.Authorize does not say who asks. Bodies of messages and values of
// publish options are never kept, so no page can show them. JIDs can be shown as pseudonyms.
package pushhttp
