// A client of xmpp.js, which logs in, binds and resumes in one step (XEP-0388, XEP-0386), for TestClients. See clientPrograms there for the commands.
import { client, xml } from "@xmpp/client";
import readline from "node:readline";

globalThis.WebSocket ??= (await import("ws")).default; // older Node has none

const [kind, port, password] = process.argv.slice(2);
const service = kind === "ws" ? `ws://127.0.0.1:${port}/xmpp-websocket` : `xmpp://127.0.0.1:${port}`;
const say = (line) => process.stdout.write(line + "\n");
const PUBSUB = "http://jabber.org/protocol/pubsub";

const xmpp = client({
  service,
  domain: "localhost",
  resource: "js",
  username: "juliet",
  password,
  userAgent: xml("user-agent", { id: "d4565fa7-4d72-4749-b3d3-740edbf87770" }, xml("software", {}, "xmpp.js")),
});
xmpp.reconnect.stop(); // when it is told to
xmpp.on("error", (e) => console.error(e));

let sasl2 = false;
xmpp.on("element", (e) => {
  sasl2 ||= e.is("success", "urn:xmpp:sasl:2");
  if (e.is("iq") && ["result", "error"].includes(e.attrs.type)) {
    xmpp.streamManagement.inbound += 1; // 0.14.0 does not count what answers its own requests, and acknowledges too little from then on
  }
  const archived = e.getChild("result", "urn:xmpp:mam:2");
  if (archived) {
    say("archived " + archived.getChild("forwarded", "urn:xmpp:forward:0").getChild("message").getChildText("body"));
  } else if (e.is("message") && e.getChildText("body")) {
    say("got " + e.getChildText("body"));
  }
});
xmpp.on("online", async () => {
  await xmpp.send(xml("presence"));
  say(sasl2 ? "online SASL2" : "online SASL");
});
xmpp.streamManagement.on("resumed", () => say("resumed"));
xmpp.on("disconnect", () => say("lost"));

const commands = {
  async enable() {
    const field = (name, value) => xml("field", { var: name }, xml("value", {}, value));
    await xmpp.iqCaller.request(
      xml("iq", { type: "set" },
        xml("enable", { xmlns: "urn:xmpp:push:0", jid: "push.localhost", node: "n1" },
          xml("x", { xmlns: "jabber:x:data", type: "submit" }, field("FORM_TYPE", PUBSUB + "#publish-options"), field("secret", "s3")))));
    say("enabled");
  },
  async resume() {
    await xmpp.connect(service);
    await xmpp.open({ domain: "localhost", lang: "en" });
  },
  async archive() {
    const set = xml("set", { xmlns: "http://jabber.org/protocol/rsm" }, xml("max", {}, "10"), xml("before"));
    await xmpp.iqCaller.request(xml("iq", { type: "set" }, xml("query", { xmlns: "urn:xmpp:mam:2" }, set)));
    say("end");
  },
  async close() {
    await xmpp.stop();
    say("closed");
  },
};

readline.createInterface({ input: process.stdin })
  .on("line", (line) => commands[line]().catch((e) => { console.error(line, e); process.exit(1); }))
  .on("close", () => process.exit(0));
xmpp.start().catch((e) => { console.error(e); process.exit(1); });
