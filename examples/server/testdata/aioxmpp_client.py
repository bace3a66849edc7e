"""A client of aioxmpp for TestClients. See clientPrograms there for the commands. Arguments: PORT PASSWORD."""
import asyncio
import sys

import aioxmpp
import aioxmpp.connector
import aioxmpp.forms.xso as forms
import aioxmpp.rsm.xso as rsm
import aioxmpp.xso as xso

PORT, PASSWORD = int(sys.argv[1]), sys.argv[2]
PUBSUB, MAM = "http://jabber.org/protocol/pubsub", "urn:xmpp:mam:2"


class Enable(xso.XSO):
    TAG = ("urn:xmpp:push:0", "enable")
    jid = xso.Attr("jid")
    node = xso.Attr("node")
    form = xso.Child([forms.Data])


class Query(xso.XSO):
    TAG = (MAM, "query")
    page = xso.Child([rsm.ResultSetMetadata])


class Forwarded(xso.XSO):
    TAG = ("urn:xmpp:forward:0", "forwarded")
    UNKNOWN_CHILD_POLICY = xso.UnknownChildPolicy.DROP
    message = xso.Child([aioxmpp.Message])


class Result(xso.XSO):
    TAG = (MAM, "result")
    UNKNOWN_ATTR_POLICY = xso.UnknownAttrPolicy.DROP
    forwarded = xso.Child([Forwarded])


class Fin(xso.XSO):
    TAG = (MAM, "fin")
    UNKNOWN_ATTR_POLICY = xso.UnknownAttrPolicy.DROP
    UNKNOWN_CHILD_POLICY = xso.UnknownChildPolicy.DROP


for payload in (Enable, Query, Fin):
    aioxmpp.IQ.as_payload_class(payload)
aioxmpp.Message.mam = xso.Child([Result])


def text(message):
    return next(iter(message.body.values()), "")


class Client:
    def __init__(self):
        security = aioxmpp.make_security_layer(PASSWORD, no_verify=True)
        self.client = aioxmpp.PresenceManagedClient(
            aioxmpp.JID.fromstr("juliet@localhost/aio"), security,
            override_peer=[("127.0.0.1", PORT, aioxmpp.connector.STARTTLSConnector())])
        self.client.on_stream_established.connect(lambda: print("online SASL"))
        self.client.on_stream_suspended.connect(lambda _: print("lost"))
        self.client.on_stream_resumed.connect(lambda: print("resumed"))
        self.client.on_stopped.connect(lambda: print("closed"))
        self.client.stream.service_inbound_message_filter.register(self.message, 1)
        self.client.presence = aioxmpp.PresenceState(True)

    def message(self, stanza):
        if stanza.mam is not None:
            print("archived", text(stanza.mam.forwarded.message))
        elif text(stanza):
            print("got", text(stanza))
        return stanza

    async def request(self, payload):
        await self.client.send(aioxmpp.IQ(type_=aioxmpp.IQType.SET, payload=payload))

    async def enable(self):
        e = Enable()
        e.jid, e.node = "push.localhost", "n1"
        e.form = forms.Data(type_=forms.DataType.SUBMIT)
        for var, type_, value in (("FORM_TYPE", forms.FieldType.HIDDEN, PUBSUB + "#publish-options"), ("secret", forms.FieldType.TEXT_SINGLE, "s3")):
            e.form.fields.append(forms.Field(type_=type_, values=[value], var=var))
        await self.request(e)
        print("enabled")

    async def resume(self):
        pass

    async def archive(self):
        q = Query()
        q.page = rsm.ResultSetMetadata.last_page(10)
        await self.request(q)
        print("end")

    async def close(self):
        self.client.presence = aioxmpp.PresenceState(False)


async def main():
    client = Client()
    loop = asyncio.get_event_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await getattr(client, line.strip())()


asyncio.get_event_loop().run_until_complete(main())
