"""A client of nbxmpp for TestClients. See clientPrograms there for the commands. Arguments: PORT PASSWORD."""
import sys

from gi.repository import GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.protocol import Iq, Node, Presence
from nbxmpp.structs import StanzaHandler

PORT, PASSWORD = sys.argv[1], sys.argv[2]
PUBSUB = "http://jabber.org/protocol/pubsub"

loop = GLib.MainLoop()
client = Client()
client.set_domain("localhost")
client.set_username("juliet")
client.set_password(PASSWORD)
client.set_resource("nb")
client.set_custom_host("127.0.0.1:" + PORT, ConnectionProtocol.TCP, ConnectionType.START_TLS)
client.set_ignore_tls_errors(True)  # the certificate is self-signed
closing = False


def online(*_):
    client.send_stanza(Presence())
    print("online SASL")


def gone(*_):
    print("closed" if closing else "lost")


def message(_client, _stanza, properties):
    if properties.body:
        print("archived" if properties.is_mam_message else "got", properties.body)


client.subscribe("connected", online)
client.subscribe("resume-successful", lambda *_: print("resumed"))
client.subscribe("disconnected", gone)
client.register_handler(StanzaHandler(name="message", callback=message, priority=50))


def request(payload, done):
    iq = Iq("set")
    iq.addChild(node=payload)
    client.send_stanza(iq, callback=lambda _, reply: print(done if reply.getType() == "result" else reply))


def enable():
    fields = [Node("field", {"var": var}, [Node("value", payload=[value])])
              for var, value in (("FORM_TYPE", PUBSUB + "#publish-options"), ("secret", "s3"))]
    form = Node("x", {"xmlns": "jabber:x:data", "type": "submit"}, fields)
    request(Node("enable", {"xmlns": "urn:xmpp:push:0", "jid": "push.localhost", "node": "n1"}, [form]), "enabled")


def archive():
    rsm = Node("set", {"xmlns": "http://jabber.org/protocol/rsm"}, [Node("max", payload=["10"]), Node("before")])
    request(Node("query", {"xmlns": "urn:xmpp:mam:2", "queryid": "q1"}, [rsm]), "end")


def close():
    global closing
    closing = True
    client.disconnect()


commands = {"enable": enable, "resume": client.connect, "archive": archive, "close": close}


def command(_fd, _condition):
    line = sys.stdin.readline()
    if not line:
        loop.quit()
        return False
    commands[line.strip()]()
    return True


GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_IN | GLib.IO_HUP, command)
client.connect()
loop.run()
