-- The last step of mod_push_appserver, for pushes of type "test": it takes them all. For TestAppServer.
module:hook("determine-test-priority", function()
	return "high";
end);
module:hook("incoming-push-to-test", function(event)
	module:log("warn", "pushed to %s: %s", event.settings.token, event.summary and event.summary["last-message-body"] or "silent");
	return false; -- success
end);
