/* uWebSockets (C++) under callbacks in C: its own library, as socketify's wheel brings it, and no Python.
 *
 *     uwebsockets PORT [STREAMED TEXT] [--deflate] [--tls CERTIFICATE]
 *
 * The declarations are those of its C interface, as far as they are used.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct uws_app_s uws_app_t;
typedef struct uws_websocket_s uws_websocket_t;
enum { SHARED_COMPRESSOR = 1, SHARED_DECOMPRESSOR = 1 << 8, LARGEST = 1 << 24 };

struct us_socket_context_options_t {
    const char *key_file_name, *cert_file_name, *passphrase, *dh_params_file_name, *ca_file_name, *ssl_ciphers;
    int ssl_prefer_low_memory_usage;
};
typedef struct {
    int port;
    const char *host;
    int options;
} uws_app_listen_config_t;
typedef struct {
    int compression;
    unsigned maxPayloadLength;
    unsigned short idleTimeout;
    unsigned maxBackpressure;
    bool closeOnBackpressureLimit, resetIdleTimeoutOnSend, sendPingsAutomatically;
    unsigned short maxLifetime;
    void (*upgrade)(void), (*open)(void);
    void (*message)(uws_websocket_t *, const char *, size_t, int, void *);
    void (*drain)(void), (*ping)(void), (*pong)(void), (*close)(void), (*subscription)(void);
} uws_socket_behavior_t;

uws_app_t *uws_create_app(int, struct us_socket_context_options_t);
bool uws_constructor_failed(int, uws_app_t *);
void uws_ws(int, uws_app_t *, const char *, uws_socket_behavior_t, void *);
int uws_ws_send_with_options(int, uws_websocket_t *, const char *, size_t, int, bool, bool);
typedef void (*uws_listen_handler)(void *, uws_app_listen_config_t, void *);
void uws_app_listen_with_config(int, uws_app_t *, uws_app_listen_config_t, uws_listen_handler, void *);
void uws_app_run(int, uws_app_t *);

static int tls, streamed;
static bool deflate;
static const char *text;
static size_t text_size;

static void echo(uws_websocket_t *socket, const char *message, size_t size, int opcode, void *unused) {
    uws_ws_send_with_options(tls, socket, message, size, opcode, deflate, true);
}

static void stream(uws_websocket_t *socket, const char *message, size_t size, int opcode, void *unused) {
    for (int each = 0; each < streamed; each++)
        uws_ws_send_with_options(tls, socket, text, text_size, opcode, false, true);
}

static void listening(void *socket, uws_app_listen_config_t config, void *unused) {
    if (socket) return;
    fprintf(stderr, "the port %d is taken\n", config.port);
    exit(1);
}

int main(int count, char **words) {
    struct us_socket_context_options_t certificate = {0};
    if (count < 2) return fputs("uwebsockets PORT [STREAMED TEXT] [--deflate] [--tls CERTIFICATE]\n", stderr), 2;
    for (int each = 2; each < count; each++) {
        if (!strcmp(words[each], "--deflate")) {
            deflate = true;
        } else if (!strcmp(words[each], "--tls") && each + 1 < count) {
            tls = 1;
            certificate.key_file_name = certificate.cert_file_name = words[++each];
        } else if (each + 1 < count) {
            streamed = atoi(words[each]);
            text_size = strlen(text = words[++each]);
        }
    }
    uws_socket_behavior_t behaviour = {
        .compression = deflate ? SHARED_COMPRESSOR | SHARED_DECOMPRESSOR : 0,
        .maxPayloadLength = LARGEST,
        .maxBackpressure = LARGEST,
        .idleTimeout = 960,
        .message = streamed ? stream : echo,
    };
    uws_app_t *app = uws_create_app(tls, certificate);
    if (uws_constructor_failed(tls, app)) return fputs("the certificate was refused\n", stderr), 1;
    uws_ws(tls, app, "/*", behaviour, NULL);
    uws_app_listen_config_t where = {.port = atoi(words[1]), .host = "127.0.0.1"};
    uws_app_listen_with_config(tls, app, where, listening, NULL);
    uws_app_run(tls, app);
}
