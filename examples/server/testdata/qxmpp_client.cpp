// A client of QXmpp for TestClients. See clientPrograms there for the commands. Arguments: PORT PASSWORD.
#include <QCoreApplication>
#include <QDomElement>
#include <QSocketNotifier>
#include <QTimer>
#include <QXmlStreamWriter>

#include <QXmppClient.h>
#include <QXmppConfiguration.h>
#include <QXmppIq.h>
#include <QXmppMamManager.h>
#include <QXmppMessage.h>

#include <cstdio>
#include <unistd.h>

static void say(const QString &line)
{
    std::puts(line.toUtf8().constData());
    std::fflush(stdout);
}

// Enable is the request of XEP-0357, which this version of the library does not know.
class Enable : public QXmppIq
{
public:
    Enable() : QXmppIq(QXmppIq::Set) {}

protected:
    void toXmlElementFromChild(QXmlStreamWriter *w) const override
    {
        w->writeStartElement("enable");
        w->writeDefaultNamespace("urn:xmpp:push:0");
        w->writeAttribute("jid", "push.localhost");
        w->writeAttribute("node", "n1");
        w->writeStartElement("x");
        w->writeDefaultNamespace("jabber:x:data");
        w->writeAttribute("type", "submit");
        field(w, "FORM_TYPE", "http://jabber.org/protocol/pubsub#publish-options");
        field(w, "secret", "s3");
        w->writeEndElement();
        w->writeEndElement();
    }

private:
    static void field(QXmlStreamWriter *w, const QString &name, const QString &value)
    {
        w->writeStartElement("field");
        w->writeAttribute("var", name);
        w->writeTextElement("value", value);
        w->writeEndElement();
    }
};

int main(int argc, char **argv)
{
    QCoreApplication app(argc, argv);
    QXmppClient client;
    auto *mam = new QXmppMamManager;
    client.addExtension(mam);

    QXmppConfiguration config;
    config.setJid("juliet@localhost");
    config.setResource("q");
    config.setPassword(QString::fromUtf8(argv[2]));
    config.setHost("127.0.0.1");
    config.setPort(QString(argv[1]).toInt());
    config.setIgnoreSslErrors(true); // the certificate is self-signed
    config.setAutoReconnectionEnabled(false);

    QString enableId;
    bool closing = false, resuming = false;
    QObject::connect(&client, &QXmppClient::connected, [&] {
        resuming = false;
        if (client.streamManagementState() == QXmppClient::ResumedStream)
            say("resumed");
        else
            say("online SASL");
    });
    QObject::connect(&client, &QXmppClient::disconnected, [&] {
        if (resuming) { // refused; the next time it asks for a new session
            resuming = false;
            QTimer::singleShot(0, &client, [&] { client.connectToServer(config); });
            return;
        }
        say(closing ? "closed" : "lost");
    });
    QObject::connect(&client, &QXmppClient::messageReceived, [&](const QXmppMessage &m) {
        if (!m.body().isEmpty())
            say("got " + m.body());
    });
    QObject::connect(mam, &QXmppMamManager::archivedMessageReceived, [&](const QString &, const QXmppMessage &m) {
        say("archived " + m.body());
    });
    QObject::connect(mam, &QXmppMamManager::resultsRecieved, [&] { say("end"); });
    QObject::connect(&client, &QXmppClient::iqReceived, [&](const QXmppIq &iq) {
        if (iq.id() == enableId)
            say(iq.type() == QXmppIq::Result ? "enabled" : "refused");
    });

    QSocketNotifier in(STDIN_FILENO, QSocketNotifier::Read);
    QObject::connect(&in, &QSocketNotifier::activated, [&] {
        char buffer[256];
        ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
        if (n <= 0) {
            app.quit();
            return;
        }
        for (const QString &line : QString::fromUtf8(buffer, n).split('\n', Qt::SkipEmptyParts)) {
            if (line == "enable") {
                Enable e;
                enableId = e.id();
                client.sendPacket(e);
            } else if (line == "resume") {
                resuming = true;
                client.connectToServer(config);
            } else if (line == "archive") {
                QXmppResultSetQuery page;
                page.setMax(10);
                page.setBefore("");
                mam->retrieveArchivedMessages({}, {}, {}, {}, {}, page);
            } else if (line == "close") {
                closing = true;
                client.disconnectFromServer();
            }
        }
    });
    client.connectToServer(config);
    return app.exec();
}
