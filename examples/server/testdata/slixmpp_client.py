"""A client of slixmpp for TestClients. See clientPrograms there for the commands. Arguments: PORT PASSWORD."""
import asyncio
import ssl
import sys

import slixmpp
from slixmpp.xmlstream import ET

PORT, PASSWORD = int(sys.argv[1]), sys.argv[2]
PUBSUB, PUSH, DATA = "http://jabber.org/protocol/pubsub", "urn:xmpp:push:0", "jabber:x:data"


class Client(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__("juliet@localhost/slix", PASSWORD)
        self.ssl_context.check_hostname = False  # the certificate is self-signed
        self.ssl_context.verify_mode = ssl.CERT_NONE
        for plugin in ("xep_0198", "xep_0313"):
            self.register_plugin(plugin)
        self.closing = False
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("session_resumed", lambda _: print("resumed"))
        self.add_event_handler("message", lambda m: m["body"] and print("got", m["body"]))
        self.add_event_handler("disconnected", lambda _: print("closed" if self.closing else "lost"))

    def go(self):
        self.connect(("127.0.0.1", PORT), force_starttls=True)

    async def started(self, _):
        self.send_presence()
        print("online", self["feature_mechanisms"].mech.name)

    async def enable(self):
        iq = self.make_iq_set()
        e = ET.Element("{%s}enable" % PUSH, jid="push.localhost", node="n1")
        x = ET.SubElement(e, "{%s}x" % DATA, type="submit")
        for var, value in (("FORM_TYPE", PUBSUB + "#publish-options"), ("secret", "s3")):
            field = ET.SubElement(x, "{%s}field" % DATA, var=var)
            ET.SubElement(field, "{%s}value" % DATA).text = value
        iq.append(e)
        await iq.send()
        print("enabled")

    async def resume(self):
        self.go()

    async def archive(self):
        page = await self["xep_0313"].retrieve(rsm={"max": "10", "before": ""})
        for m in page["mam"]["results"]:
            print("archived", m["mam_result"]["forwarded"]["message"]["body"])
        print("end")

    async def close(self):
        self.closing = True
        await self.disconnect()


async def main():
    client = Client()
    client.go()
    loop = asyncio.get_event_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await getattr(client, line.strip())()


asyncio.get_event_loop().run_until_complete(main())
