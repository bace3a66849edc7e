// Package trace is the trace format: what happened on an XMPP server as far as push is concerned, one JSON object a line, to be recorded on
// any server and replayed anywhere. A replay decides the events again, in the trace's own time and without a network, and explains each
// decision; the same trace always gives the same output.
//
// Each event of package push has a line, whose type is its name (push.Event.Name). at is its time in milliseconds, counted from whenever one likes;
// it never falls from one line to the next. For example:
//
//	{"type":"config","host":"example.com","replies":"ok","policy":{…}}            optional, first line
//	{"at":t,"type":"session-open","session":"s1","jid":"juliet@example.com/phone","client":"…"}
//	{"at":t,"type":"push-enable","session":"s1","service":"push.example.net","node":"n1","options":{"secret":"…"}}
//	{"at":t,"type":"session-restored","session":"s1","jid":…,"client":…,"service":…,"node":…,"superseded":true,"hibernated":true,"extended":true}
//	{"at":t,"type":"acknowledged","session":"s1","ids":["m1","m2"]}
//	{"at":t,"type":"session-active","session":"s1"}
//	{"at":t,"type":"session-presence","session":"s1","away":true}
//	{"at":t,"type":"displayed","user":"juliet@example.com","chat":"romeo@example.net","up_to":"m1","session":"s1"}
//	{"at":t,"type":"chat-changed","user":"juliet@example.com","chat":"romeo@example.net"}
//	{"at":t,"type":"ack-delayed","session":"s1","queue":[{"id":"m1","xml":"<message …"}]}
//	{"at":t,"type":"archive-added","user":"juliet@example.com","stanza":{"id":"m1","held":true}}
//	{"at":t,"type":"publish-error","user":…,"service":…,"node":…,"error_type":"cancel","condition":"gone"}
//	{"at":t,"type":"observed-push","user":…,"service":…,"node":…,"important":true,"stanza":"m1"}
//
// The others have the same fields: hibernation-start a queue as ack-delayed; stanza-queued a session and a stanza; offline and groupchat what
// archive-added has; push-disable and affiliation-none a service and a node; session-close and hibernation-end a session; account-removed a user.
//
// With replies "ok" every publish succeeds at once, with "trace" the replies are the trace's publish-result and publish-error lines. observed-push is
// what the recorded server pushed itself, to compare with. The xml of a stanza may be left out once its ID was seen; the reader remembers the newest
// 262,144. A ping may name one registration (service, node) or several ("registrations":[…]). Lines of a session may name its account too (user), for
// sessions that were not opened in the trace and IDs that are not unique in it; with it push-enable and push-disable need no session. What was there
// before the trace began is said by
//
//	{"at":t,"type":"account","user":"juliet@example.com",
//	 "registrations":[{"service":…,"node":…,"client":…,"enabled":t,"errors":0,"refusals":0,"succeeded":t,"disabled":t,"cause":…}],
//	 "sessions":[{"session":"s1","client":…,"service":…,"node":…,"superseded":true,"hibernated":true,"extended":true}]}
//
// A [Recorder] writes traces of a live Engine. They say besides what that Engine did. With replies "recorded" a replay does the same at the same
// times and compares ([Replay.Differences]): it makes up nothing, even of an Engine that was under load. Such a trace has the nanoseconds below the
// millisecond (ns), and in event lines their number, what was decided, and what the host answered when it was asked:
//
//	{"at":t,"ns":…,"type":"archive-added",…,"number":4711,
//	 "decided":[{"service":…,"node":…,"notify":true,"class":"important","rule":"archived","reason":"no-session","stanzas":["m1"],"count":1}],
//	 "answers":{"elsewhere":[{"service":…,"node":…}],"vetoes":[{"service":…,"node":…,"stanza":0,"text":…}],"chats":[…]}}
//	{"at":t,"type":"publish","user":…,"service":…,"node":…,"class":"important","count":1,"unread":3,"try":2,"events":[4711]}
//	{"at":t,"type":"publish-result","user":…,"service":…,"node":…,"outcome":"accepted"}          or "vetoed":…
//	{"at":t,"type":"publish-error",…,"error_type":"wait","condition":…,"outcome":"transient"}    or "missing":true
//	{"at":t,"type":"drop","user":…,"service":…,"node":…,"class":"urgent","count":1,"events":[4711]}   given up, too old
//
// An answer without a service is about the account: {"reason":"no-registration"}. A config line of a recording says when the Engine was started
// ("started":t); it begins each file, may be met again in the middle, and ends all that was if it tells of another start. Files may be
// compressed with gzip, follow each other ([Join]), and end in the middle of a line.
package trace
