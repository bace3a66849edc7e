"""Two slixmpp clients and a slixmpp component against the server: TLS, SCRAM, push, loss of the connection, resumption, archive.

Arguments: C2S_PORT COMPONENT_PORT SECRET PASSWORD [OTHER_C2S_PORT], the last for resuming at another server of a cluster. Prints one line a step; exits with 1 if one fails.
"""
import asyncio
import ssl
import sys

import slixmpp
from slixmpp.componentxmpp import ComponentXMPP
from slixmpp.xmlstream import ET
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

C2S, COMPONENT, SECRET, PASSWORD = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
OTHER = int(sys.argv[5]) if len(sys.argv) > 5 else C2S
PUBSUB, PUSH, DATA = "http://jabber.org/protocol/pubsub", "urn:xmpp:push:0", "jabber:x:data"


class PushService(ComponentXMPP):
    def __init__(self):
        super().__init__("push.localhost", SECRET, "127.0.0.1", COMPONENT)
        self.published = asyncio.Queue()
        self.register_handler(Callback("publish", MatchXPath("{jabber:component:accept}iq/{%s}pubsub" % PUBSUB), self.publish))

    def publish(self, iq):
        node = iq.xml.find("{%s}pubsub/{%s}publish" % (PUBSUB, PUBSUB)).get("node")
        fields = {}
        for field in iq.xml.iter("{%s}field" % DATA):
            fields[field.get("var")] = field.findtext("{%s}value" % DATA)
        self.published.put_nowait((str(iq["from"]), node, fields))
        reply = iq.reply()
        reply.send()


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, tls=True):
        super().__init__(jid, PASSWORD, sasl_mech=None if tls else "PLAIN")
        self.tls = tls
        self.ssl_context.check_hostname = False  # the certificate is self-signed
        self.ssl_context.verify_mode = ssl.CERT_NONE
        for plugin in ("xep_0198", "xep_0313", "xep_0280", "xep_0030"):
            self.register_plugin(plugin)
        if not tls:
            self["feature_mechanisms"].unencrypted_plain = True
        self.bodies = asyncio.Queue()
        self.session = asyncio.Queue()
        self.add_event_handler("session_start", lambda _: self.session.put_nowait("started"))
        self.add_event_handler("session_resumed", lambda _: self.session.put_nowait("resumed"))
        self.add_event_handler("message", lambda m: self.bodies.put_nowait(m["body"]))

    def go(self, port=C2S):
        self.connect(("127.0.0.1", port), force_starttls=self.tls, disable_starttls=not self.tls)

    async def started(self, how):
        got = await asyncio.wait_for(self.session.get(), 10)
        assert got == how, (got, how)
        if how == "started":
            self.send_presence()
            await self.get_roster()
            assert (self.transport.get_extra_info("ssl_object") is not None) == self.tls

    async def body(self, want):
        while True:
            if await asyncio.wait_for(self.bodies.get(), 10) == want:
                return


def enable(client):
    iq = client.make_iq_set()
    e = ET.Element("{%s}enable" % PUSH, jid="push.localhost", node="slix")
    x = ET.SubElement(e, "{%s}x" % DATA, type="submit")
    for var, value in (("FORM_TYPE", PUBSUB + "#publish-options"), ("secret", "s3")):
        field = ET.SubElement(x, "{%s}field" % DATA, var=var)
        ET.SubElement(field, "{%s}value" % DATA).text = value
    iq.append(e)
    return iq.send()


async def published(service):
    sender, node, fields = await asyncio.wait_for(service.published.get(), 10)
    assert (sender, node, fields["secret"]) == ("localhost", "slix", "s3"), (sender, node, fields)
    return fields


async def main():
    service = PushService()
    service.connect()
    await asyncio.wait_for(service.wait_until("session_start"), 10)
    juliet, romeo = Client("juliet@localhost/slix"), Client("romeo@localhost/slix", tls=False)
    for c in (juliet, romeo):
        c.go()
        await c.started("started")
    mech = juliet["feature_mechanisms"].mech.name
    assert mech == "SCRAM-SHA-256", mech
    info = await juliet["xep_0030"].get_info(jid="juliet@localhost")
    assert PUSH in info["disco_info"]["features"], "the account does not announce push"
    assert romeo["feature_mechanisms"].mech.name == "PLAIN"
    print("connected, with TLS and", mech, "and with neither")

    await enable(juliet)
    romeo.send_message("juliet@localhost", "online", mtype="chat")
    await juliet.body("online")
    print("enabled; online, so nobody is notified")

    await asyncio.sleep(0.3)
    juliet.abort()
    romeo.send_message("juliet@localhost", "asleep", mtype="chat")
    fields = await published(service)
    assert fields["message-count"] == "1" and fields.get("last-message-body"), fields
    print("connection lost, published")

    juliet.go(OTHER)
    await juliet.started("resumed")
    await juliet.body("asleep")
    print("resumed, with the message")

    await juliet.disconnect()
    await asyncio.sleep(0.3)
    romeo.send_message("juliet@localhost", "offline", mtype="chat")
    await published(service)
    again = Client("juliet@localhost/other")
    again.go()
    assert await asyncio.wait_for(again.session.get(), 10) == "started"
    found = []
    async for page in again["xep_0313"].retrieve(rsm={"max": "2"}, iterator=True):
        found += [m["mam_result"]["forwarded"]["message"]["body"] for m in page["mam"]["results"]]
    assert sorted(found) == ["asleep", "offline", "online"], found
    assert service.published.empty(), "published more than that"
    print("offline, published once, fetched from the archive")
    for c in (again, romeo, service):
        await c.disconnect()


asyncio.get_event_loop().run_until_complete(asyncio.wait_for(main(), 60))
