/* A client of libstrophe for TestClients. See clientPrograms there for the commands. Arguments: PORT PASSWORD. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <strophe.h>

static xmpp_ctx_t *ctx;
static xmpp_conn_t *conn;
static xmpp_sm_state_t *sm;
static const char *password;
static unsigned short port;
static int connected, resumed, closing, over;

static void say(const char *what, const char *text)
{
    printf(text ? "%s %s\n" : "%s\n", what, text);
    fflush(stdout);
}

/* The library does not say whether it resumed; what it received does. */
static void watch(void *data, xmpp_log_level_t level, const char *area, const char *msg)
{
    (void)data;
    if (strstr(msg, "RECV: <resumed"))
        resumed = 1;
    if (level >= XMPP_LEVEL_WARN)
        fprintf(stderr, "%s: %s\n", area, msg);
}

static const xmpp_log_t watching = {watch, NULL};

static int message(xmpp_conn_t *c, xmpp_stanza_t *stanza, void *data)
{
    xmpp_stanza_t *m = xmpp_stanza_get_child_by_name_and_ns(stanza, "result", "urn:xmpp:mam:2");
    xmpp_stanza_t *body;
    const char *what = "got";

    (void)c;
    (void)data;
    if (m) {
        what = "archived";
        m = xmpp_stanza_get_child_by_name(m, "forwarded");
        stanza = m ? xmpp_stanza_get_child_by_name(m, "message") : NULL;
    }
    body = stanza ? xmpp_stanza_get_child_by_name(stanza, "body") : NULL;
    if (body) {
        char *text = xmpp_stanza_get_text(body);
        say(what, text);
        xmpp_free(ctx, text);
    }
    return 1;
}

static int answered(xmpp_conn_t *c, xmpp_stanza_t *stanza, void *what)
{
    (void)c;
    say(strcmp(xmpp_stanza_get_type(stanza), "result") ? "refused" : what, NULL);
    return 0;
}

static void request(const char *id, const char *xml, const char *done)
{
    xmpp_stanza_t *iq = xmpp_stanza_new_from_string(ctx, xml);
    xmpp_id_handler_add(conn, answered, id, (void *)done);
    xmpp_send(conn, iq);
    xmpp_stanza_release(iq);
}

static void event(xmpp_conn_t *c, xmpp_conn_event_t status, int error, xmpp_stream_error_t *stream_error, void *data)
{
    (void)error;
    (void)stream_error;
    (void)data;
    if (status == XMPP_CONN_CONNECT) {
        connected = 1;
        if (resumed) {
            say("resumed", NULL);
            return;
        }
        xmpp_stanza_t *presence = xmpp_presence_new(ctx);
        xmpp_send(c, presence);
        xmpp_stanza_release(presence);
        say("online SASL", NULL);
        return;
    }
    if (closing) {
        say("closed", NULL);
        over = 1;
    } else if (connected) {
        sm = xmpp_conn_get_sm_state(c);
        say("lost", NULL);
    } else {
        say("failed", NULL);
    }
    connected = 0;
}

static void go(void)
{
    if (conn)
        xmpp_conn_release(conn);
    conn = xmpp_conn_new(ctx);
    xmpp_conn_set_flags(conn, XMPP_CONN_FLAG_TRUST_TLS); /* the certificate is self-signed */
    xmpp_conn_set_jid(conn, "juliet@localhost/strophe");
    xmpp_conn_set_pass(conn, password);
    if (sm)
        xmpp_conn_set_sm_state(conn, sm);
    sm = NULL;
    resumed = 0;
    xmpp_handler_add(conn, message, NULL, "message", NULL, NULL);
    xmpp_connect_client(conn, "127.0.0.1", port, event, NULL);
}

static void command(char *line)
{
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "enable"))
        request("e1",
                "<iq type='set' id='e1'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n1'>"
                "<x xmlns='jabber:x:data' type='submit'>"
                "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
                "<field var='secret'><value>s3</value></field></x></enable></iq>",
                "enabled");
    else if (!strcmp(line, "archive"))
        request("q1",
                "<iq type='set' id='q1'><query xmlns='urn:xmpp:mam:2'>"
                "<set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before/></set></query></iq>",
                "end");
    else if (!strcmp(line, "resume"))
        go();
    else if (!strcmp(line, "close")) {
        closing = 1;
        xmpp_disconnect(conn);
    }
}

int main(int argc, char **argv)
{
    static char buffer[4096];
    size_t have = 0;

    if (argc < 3)
        return 2;
    port = atoi(argv[1]);
    password = argv[2];
    xmpp_initialize();
    ctx = xmpp_ctx_new(NULL, &watching);
    go();
    while (!over) {
        struct pollfd in = {0, POLLIN, 0};
        xmpp_run_once(ctx, 20);
        if (poll(&in, 1, 0) == 1) {
            ssize_t n = read(0, buffer + have, sizeof buffer - 1 - have);
            char *end;
            if (n <= 0)
                return 0;
            have += n;
            buffer[have] = 0;
            while ((end = strchr(buffer, '\n'))) {
                *end = 0;
                command(buffer);
                have -= end + 1 - buffer;
                memmove(buffer, end + 1, have + 1);
            }
        }
    }
    return 0;
}
