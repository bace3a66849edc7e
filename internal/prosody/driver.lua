-- Runs Prosody's real mod_cloud_notify over a trace (see the trace package for
-- the format), in the trace's own time, without a server around it.
--
--   lua5.4 driver.lua [-measure] [option=value ...] < trace > publishes
--
-- For each publish that the module sends, one JSON line is printed:
--
--   {"at":…,"event":N,"user":…,"service":…,"node":…,"important":bool,"stanza":ID,
--    "covered":[{"stanza":ID,"event":N},…]}
--
-- "event" is the number of the event line that was being handled, or that
-- started the timer which sent the publish. "stanza" is what the module
-- published for; it publishes once per class for a whole batch, so "covered"
-- lists every stanza of that class in the batch, each with the event that
-- brought it. A ping has neither.
--
-- The first time that a stanza is seen, what the module takes it for:
--
--   {"user":…,"stanza":ID,"class":"urgent|important|plain"}
--
-- When the module changes how long a hibernated session can be resumed:
--
--   {"at":…,"event":N,"session":…,"resumable":SECONDS}
--
-- With -measure nothing of that is printed: the trace is parsed first, then
-- played, and one line tells how much CPU time the module's handlers took:
--
--   {"events":N,"publishes":N,"microseconds":T}
--
-- option=value pairs are options of the module, e.g. push_max_errors=3.
-- PROSODY_LIB and MOD_CLOUD_NOTIFY in the environment say where Prosody's
-- libraries and the module are, where that is not where Debian puts them.

local prosody_lib = os.getenv("PROSODY_LIB") or "/usr/lib/prosody";
local module_file = os.getenv("MOD_CLOUD_NOTIFY")
	or prosody_lib .. "/modules/mod_cloud_notify/mod_cloud_notify.lua";
package.path = prosody_lib .. "/?.lua;" .. package.path;
package.cpath = prosody_lib .. "/?.so;" .. package.cpath;

local measure, options = false, {};
for _, a in ipairs(arg) do
	local name, value = a:match("^([%w_]+)=(.*)$");
	if name then
		options[name] = value;
	elseif a == "-measure" then
		measure = true;
	else
		error("driver.lua: unknown argument " .. a);
	end
end

---- Virtual time -------------------------------------------------------------

local now = 0; -- milliseconds of the trace
os.time = function () return now // 1000; end -- luacheck: ignore 122

-- Timers that have not fired, by time.
local timers, first_timer = {}, 1;

local function add_timer(seconds, callback)
	local timer = { due = now + math.floor(seconds * 1000 + 0.5), callback = callback };
	local i = #timers;
	while i >= first_timer and timers[i].due > timer.due do
		timers[i + 1] = timers[i];
		i = i - 1;
	end
	timers[i + 1] = timer;
	function timer:stop() self.callback = nil; end
	return timer;
end

local function run_timers(upto)
	while timers[first_timer] and timers[first_timer].due <= upto do
		local timer = timers[first_timer];
		timers[first_timer] = false;
		first_timer = first_timer + 1;
		if timer.callback then
			now = math.max(now, timer.due);
			timer.callback();
		end
	end
	if first_timer > #timers then timers, first_timer = {}, 1; end
end

---- What the trace is at, and what has to be known about it ----------------------

local current_event = 0;   -- number of the event line
local current_session;     -- the session it is about
local origin_of = setmetatable({}, { __mode = "k" }); -- stanza → { id, event }
local publishes = 0;
local sent = {};           -- publishes since the last call of take_sent

-- The watchdog that mod_smacks sets on a hibernated session, and that
-- mod_cloud_notify replaces to let the session live longer. The trace says
-- when a session ends, so it never fires; it only tells its time.
local print_line;
package.loaded["util.watchdog"] = {
	new = function (timeout, callback)
		if current_session and not measure then
			print_line({ at = now, event = current_event, session = current_session.trace_id, resumable = timeout });
		end
		return { timeout = timeout, callback = callback, cancel = function () end, reset = function () end };
	end;
};

local st = require "util.stanza";
local jid = require "util.jid";
local json = require "util.json";
local parse_xml = require "util.xml".parse;

function print_line(t)
	io.stdout:write(json.encode(t), "\n");
end

-- The module copies stanzas of a batch, and its marks "already pushed" do not
-- survive that. The copy stays known here, with the event that asked for it.
local real_clone = st.clone;
local function tracking_clone(stanza, only_top)
	local copy = real_clone(stanza, only_top);
	local origin = origin_of[stanza];
	if origin then origin_of[copy] = { id = origin.id, event = current_event }; end
	return copy;
end

---- The module API, as far as the module uses it ------------------------------

local lines = io.read("a");
local config = {};
do
	local first = lines:match("^%s*([^\n]+)");
	local decoded = first and json.decode(first);
	if decoded and decoded.type == "config" then config = decoded; end
	if not config.host then
		-- Without a config line, the host of the first account is the host.
		local full = lines:match('"jid":"([^"]+)"') or lines:match('"user":"([^"]+)"');
		config.host = full and select(2, jid.split(full)) or "localhost";
	end
end
local host = config.host;
local host_sessions = {};

local events = require "util.events".new();
local clock = os.clock;
local spent = 0;

local function fire(name, data)
	if measure then
		local start = clock();
		local result = events.fire_event(name, data);
		spent = spent + (clock() - start);
		return result;
	end
	return events.fire_event(name, data);
end

local stored, shared = {}, {};
local module_api = { host = host };
function module_api:log() end
function module_api:hook(name, handler, priority) events.add_handler(name, handler, priority); end
function module_api:unhook(name, handler) events.remove_handler(name, handler); end
function module_api:get_option_boolean(name, default)
	if options[name] == nil then return default; end
	return options[name] == "true";
end
function module_api:get_option_number(name, default) return tonumber(options[name]) or default; end
function module_api:get_option_string(name, default) return options[name] or default; end
function module_api:shared(name)
	shared[name] = shared[name] or {};
	return shared[name];
end
function module_api:open_store()
	return {
		get = function (_, user) return stored[user]; end;
		set = function (_, user, data) stored[user] = data; return true; end;
	};
end
function module_api:fire_event(name, data)
	if name == "cloud_notify/push" and not measure then
		sent[#sent + 1] = {
			at = now;
			user = data.username .. "@" .. host;
			service = data.push_info.jid;
			node = data.push_info.node;
			important = data.important;
			original = data.original_stanza;
		};
	end
	return events.fire_event(name, data);
end

-- Publishes that wait for their reply.
local unanswered = {};
function module_api:send(stanza)
	publishes = publishes + 1;
	local publish = stanza:get_child("pubsub", "http://jabber.org/protocol/pubsub"):get_child("publish");
	unanswered[#unanswered + 1] = { id = stanza.attr.id, service = stanza.attr.to, node = publish.attr.node or "" };
end

-- The only timer that the module sets is the one that collects a batch for a
-- session: when it fires, the batch is what lies in session.push_queue.
local classify, send_batch;
function module_api:add_timer(seconds, callback)
	local session, event = current_session, current_event;
	return add_timer(seconds, function ()
		local outer_session, outer_event = current_session, current_event;
		current_session, current_event = session, event;
		send_batch(session, session.push_queue, function ()
			if measure then
				local start = clock();
				callback();
				spent = spent + (clock() - start);
			else
				callback();
			end
		end);
		current_session, current_event = outer_session, outer_event;
	end);
end

st.clone = tracking_clone;
local environment = setmetatable({
	module = module_api;
	prosody = { hosts = { [host] = { sessions = host_sessions } } };
}, { __index = _G });
assert(loadfile(module_file, "t", environment))();

-- The module's own functions that classify a stanza. They are local to it,
-- but they are upvalues of its handlers.
local function find_upvalue(f, name, depth)
	for i = 1, 60 do
		local found, value = debug.getupvalue(f, i);
		if not found then break; end
		if found == name then return value; end
		if depth > 0 and type(value) == "function" and debug.getinfo(value, "S").source:find("cloud_notify", 1, true) then
			local deeper = find_upvalue(value, name, depth - 1);
			if deeper ~= nil then return deeper; end
		end
	end
end
local function module_local(handler_of, name)
	for _, handler in ipairs(events.get_handlers(handler_of) or {}) do
		local value = find_upvalue(handler, name, 3);
		if value ~= nil then return value; end
	end
	error("driver.lua: this mod_cloud_notify has no " .. name);
end
local is_important = module_local("smacks-hibernation-start", "is_important");
local is_urgent = module_local("archive-message-added", "is_urgent");
local push_store = module_local("archive-message-added", "push_store");

function classify(stanza)
	if is_urgent(stanza) then return is_important(stanza) and "urgent" or "plain"; end
	return is_important(stanza) and "important" or "plain";
end

---- Publishes ------------------------------------------------------------------

local function reply(publish, error_type, condition)
	if not error_type then
		fire("iq-result/host/" .. publish.id, {
			stanza = st.stanza("iq", { type = "result", id = publish.id, from = publish.service, to = host });
		});
		return;
	end
	fire("iq-error/host/" .. publish.id, {
		stanza = st.stanza("iq", { type = "error", id = publish.id, from = publish.service, to = host })
			:tag("error", { type = error_type })
			:tag(condition, { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):up():up();
	});
end

local function answer_all()
	if config.replies == "trace" then return; end
	local answer = unanswered;
	unanswered = {};
	for _, publish in ipairs(answer) do reply(publish); end
end

-- Prints what was sent since the last call. covered is the batch it was sent
-- for, by class; without it, each publish is for its own stanza only.
local function print_sent(covered)
	local list = sent;
	sent = {};
	for _, publish in ipairs(list) do
		local origin = publish.original and origin_of[publish.original];
		publish.event = current_event;
		if covered then
			publish.covered = covered[publish.important];
		elseif origin then
			publish.covered = { { stanza = origin.id, event = current_event } };
		end
		publish.stanza = origin and origin.id;
		publish.original = nil;
		print_line(publish);
	end
end

local function handle(name, data)
	fire(name, data);
	print_sent();
	answer_all();
end

-- Runs send, which publishes for a batch of session.
function send_batch(session, batch, send)
	local covered = { [true] = {}, [false] = {} };
	local identifier = session.push_identifier;
	if identifier and not measure then
		for _, stanza in ipairs(batch or {}) do
			if not (stanza._push_notify and stanza._push_notify[identifier]) then
				local origin, list = origin_of[stanza], covered[is_important(stanza)];
				list[#list + 1] = { stanza = origin.id, event = origin.event };
			end
		end
	end
	send();
	print_sent(covered);
	answer_all();
end

---- Stanzas --------------------------------------------------------------------

-- As on a client's stream, jabber:client is the namespace that goes unsaid,
-- except below an element of another namespace.
local function strip_default_namespace(stanza)
	if stanza.attr.xmlns == "jabber:client" then stanza.attr.xmlns = nil; end
	if stanza.attr.xmlns == nil then
		for _, child in ipairs(stanza.tags) do strip_default_namespace(child); end
	end
	return stanza;
end

-- The newest form of each stanza, by account and ID, and by ID alone.
local parsed = {};

-- Every event in a server has its own copy of a stanza, and so it is here,
-- except for a session's queue of unacknowledged stanzas: see queued.
local function new_stanza(s, user)
	local key = (user or "") .. " " .. s.id;
	local known = parsed[key] or parsed[s.id];
	if s.xml and not (known and known.xml == s.xml) then
		known = { xml = s.xml, stanza = strip_default_namespace(assert(parse_xml(s.xml))) };
	end
	if not known then error("driver.lua: stanza without XML: " .. s.id); end
	if not parsed[key] and not measure then
		print_line({ user = user, stanza = s.id, class = classify(known.stanza) });
	end
	parsed[key], parsed[s.id] = known, known;
	return real_clone(known.stanza);
end

-- The stanza as it lies in mod_smacks' queue of the session: the same object
-- in every event of this session, until the session is over.
local function queued(session, s, fresh)
	local stanza = session.objects[s.id];
	if not stanza then
		stanza = fresh;
		session.objects[s.id] = stanza;
	end
	origin_of[stanza] = { id = s.id, event = current_event };
	return stanza;
end

---- Events -----------------------------------------------------------------------

local sessions = {};
local expired = {}; -- user → { at, objects } of the session that was closed last
local resumable = tonumber(options.smacks_hibernation_time) or 600;

local function new_session(e)
	local username, _, resource = jid.split(e.jid);
	local session = {
		trace_id = e.session, objects = {}, queue_ids = {};
		username = username, host = host, resource = resource, full_jid = e.jid;
		client_id = e.client, type = "c2s";
		log = function () end, send = function () return true; end;
	};
	sessions[e.session] = session;
	host_sessions[username] = host_sessions[username] or { sessions = {} };
	host_sessions[username].sessions[resource] = session;
end

-- What sessionmanager does with a session that is over: gone from the host,
-- and everything that a module had put into it is gone too.
local function close_session(id)
	local session = sessions[id];
	if not session then return; end
	sessions[id] = nil;
	local username, resource = session.username, session.resource;
	expired[username] = { at = now, objects = session.objects, queue_ids = session.queue_ids };
	local user = host_sessions[username];
	if user and user.sessions[resource] == session then
		user.sessions[resource] = nil;
		if not next(user.sessions) then host_sessions[username] = nil; end
	end
	for k in pairs(session) do
		if k ~= "log" then session[k] = nil; end
	end
end

local function iq_set(session, name, attr)
	attr.xmlns = "urn:xmpp:push:0";
	return st.stanza("iq", { type = "set", id = "i", from = session.full_jid }):tag(name, attr);
end

-- The session that sent a stanza, or as much of it as the module looks at.
local function sender(stanza, user)
	local from = stanza.attr.from;
	local username, from_host, resource = jid.split(from or user);
	if from_host ~= host then return { type = "s2sin", host = host, log = function () end }; end
	local of_user = host_sessions[username];
	return of_user and of_user.sessions[resource]
		or { type = "c2s", username = username, host = host, log = function () end };
end

-- A message that goes to offline storage comes either directly from its
-- sender, or from the queue of the account's last session, when that is over.
-- In the second case it is the very stanza that was in the queue.
local function offline_event(e)
	local username = jid.split(e.user);
	local all = host_sessions[username] and host_sessions[username].sessions;
	if all then
		local resource, session = next(all);
		if next(all, resource) == nil and session.hibernating and session.queue_ids[e.stanza.id] then
			return session, queued(session, e.stanza);
		end
	end
	local last = expired[username];
	if last and last.at == now and last.queue_ids[e.stanza.id] then
		return { username = username, host = host, log = function () end }, last.objects[e.stanza.id];
	end
	return nil;
end

local function drop_registration(username, service, node)
	local services = push_store:get(username);
	for identifier, info in pairs(services) do
		if info.jid == service and (info.node or "") == (node or "") then
			services[identifier] = nil;
			shared.push_errors[identifier] = nil;
			local user = host_sessions[username];
			for _, session in pairs(user and user.sessions or {}) do
				if session.push_identifier == identifier then
					session.push_identifier, session.push_settings = nil, nil;
				end
			end
		end
	end
end

local apply = {};

apply["session-open"] = function (e) new_session(e); end
apply["session-close"] = function (e) close_session(e.session); end

apply["push-enable"] = function (e, session)
	local iq = iq_set(session, "enable", { jid = e.service, node = e.node });
	if e.options then
		iq:tag("x", { xmlns = "jabber:x:data", type = "submit" });
		local names = {};
		for name in pairs(e.options) do names[#names + 1] = name; end
		table.sort(names);
		for _, name in ipairs(names) do
			iq:tag("field", { var = name }):text_tag("value", tostring(e.options[name])):up();
		end
	end
	iq:reset();
	handle("iq-set/self/urn:xmpp:push:0:enable", { origin = session, stanza = iq });
end

apply["push-disable"] = function (e, session)
	local iq = iq_set(session, "disable", { jid = e.service, node = e.node }):reset();
	handle("iq-set/self/urn:xmpp:push:0:disable", { origin = session, stanza = iq });
end

apply["ack-delayed"] = function (e, session)
	local queue = {};
	for i, s in ipairs(e.queue) do queue[i] = queued(session, s, e.fresh[i]); end
	handle("smacks-ack-delayed", { origin = session, queue = queue });
end

apply["hibernation-start"] = function (e, session)
	local queue = {};
	session.queue_ids = {};
	for i, s in ipairs(e.queue) do
		queue[i] = queued(session, s, e.fresh[i]);
		session.queue_ids[s.id] = true;
	end
	session.hibernating = os.time();
	session.hibernating_watchdog = { timeout = resumable, callback = function () end, cancel = function () end };
	send_batch(session, queue, function ()
		fire("smacks-hibernation-start", { origin = session, queue = queue });
	end);
end

apply["stanza-queued"] = function (e, session)
	local stanza = queued(session, e.stanza, e.fresh);
	session.queue_ids[e.stanza.id] = true;
	handle("smacks-hibernation-stanza-queued", { origin = session, stanza = stanza, queue = {} });
end

apply["hibernation-end"] = function (_, session)
	session.hibernating, session.hibernating_watchdog = nil, nil;
	handle("smacks-hibernation-end", { origin = {}, resumed = session, queue = {} });
end

apply["archive-added"] = function (e)
	local stanza = e.fresh;
	origin_of[stanza] = { id = e.stanza.id, event = current_event };
	handle("archive-message-added", {
		origin = sender(stanza, e.user), stanza = stanza, for_user = jid.split(e.user), id = e.stanza.id;
	});
end

apply["offline"] = function (e)
	local origin, stanza = offline_event(e);
	if not stanza then origin, stanza = sender(e.fresh, e.user), e.fresh; end
	origin_of[stanza] = { id = e.stanza.id, event = current_event };
	handle("message/offline/handle", { origin = origin, stanza = stanza, username = jid.split(e.user) });
end

apply["groupchat"] = function (e)
	origin_of[e.fresh] = { id = e.stanza.id, event = current_event };
	handle("message/bare/groupchat", { origin = sender(e.fresh, e.user), stanza = e.fresh });
end

apply["ping"] = function (e)
	handle("cloud-notify-ping", { user = jid.split(e.user) });
end

-- Prosody has no event for these two. Their effect on the registrations is
-- what every server would have to bring about.
apply["affiliation-none"] = function (e)
	drop_registration(jid.split(e.user), e.service, e.node);
end

apply["account-removed"] = function (e)
	local username = jid.split(e.user);
	local ids = {};
	for id, session in pairs(sessions) do
		if session.username == username then ids[#ids + 1] = id; end
	end
	for _, id in ipairs(ids) do close_session(id); end
	local services, identifiers = push_store:get(username), {};
	for identifier in pairs(services) do identifiers[#identifiers + 1] = identifier; end
	for _, identifier in ipairs(identifiers) do services[identifier] = nil; end
end

---- The trace ----------------------------------------------------------------------

-- Parses one line, with a fresh copy of each stanza in it.
local user_of = {}; -- by session
local function prepare(line)
	local e = json.decode(line);
	if not e then error("driver.lua: not JSON: " .. line); end
	if e.type == "config" or e.type == "observed-push" then return nil; end
	if e.type == "publish-result" or e.type == "publish-error" then
		e.is_reply = true;
		return e;
	end
	if not apply[e.type] then error("driver.lua: unknown type: " .. line); end
	if e.type == "session-open" then user_of[e.session] = jid.bare(e.jid); end
	local user = e.user or user_of[e.session];

	-- Whatever CSI holds back never reaches mod_smacks, nor the module. It is
	-- parsed still: a later line may leave its XML out.
	if e.queue then
		local queue, fresh = {}, {};
		for _, s in ipairs(e.queue) do
			local stanza = new_stanza(s, user);
			if not s.held then
				queue[#queue + 1], fresh[#fresh + 1] = s, stanza;
			end
		end
		e.queue, e.fresh = queue, fresh;
	elseif e.stanza then
		e.fresh = new_stanza(e.stanza, user);
		e.held = e.stanza.held;
	end
	return e;
end

local event_number = 0;

local function play(e)
	run_timers(e.at);
	now = math.max(now, e.at);
	if e.is_reply then
		if config.replies ~= "trace" then return; end
		for i = #unanswered, 1, -1 do
			local publish = unanswered[i];
			if publish.service == e.service and publish.node == (e.node or "") then
				table.remove(unanswered, i);
				reply(publish, e.type == "publish-error" and (e.error_type or "cancel"), e.condition);
				return;
			end
		end
		return;
	end
	event_number = event_number + 1;
	current_event = event_number;
	if e.held then return; end
	current_session = e.session and sessions[e.session];
	if e.session and not current_session and e.type ~= "session-open" then return; end
	apply[e.type](e, current_session);
	current_session = nil;
end

if measure then
	local list = {};
	for line in lines:gmatch("[^\n]+") do list[#list + 1] = prepare(line); end
	collectgarbage();
	-- What it costs to look at the clock is not the module's.
	local start, calls = clock(), 100000;
	for _ = 1, calls do clock(); end
	local look = (clock() - start) / calls;
	local looks = 0;
	local real_clock = clock;
	clock = function () looks = looks + 1; return real_clock(); end
	for _, e in ipairs(list) do play(e); end
	run_timers(math.huge);
	print_line({
		events = event_number, publishes = publishes;
		microseconds = math.floor((spent - looks / 2 * look) * 1e6 + 0.5);
	});
else
	for line in lines:gmatch("[^\n]+") do
		local e = prepare(line);
		if e then play(e); end
	end
	run_timers(math.huge);
end
