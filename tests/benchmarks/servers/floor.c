/* The floor: one epoll, recv and send, in C. It counts bytes and sends prepared answers, as limit.py does in Python.
 *
 *     floor PORT FRAME_SIZE FRAMES ANSWER_SIZE FILE
 *
 * FILE is the answer to the opening handshake, and behind it the replies to so many FRAMES of FRAME_SIZE bytes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, ROOM = 1 << 18 };

struct connection {
    int fd, open;
    size_t got;      /* bytes of a frame that is not whole */
    size_t sent, to; /* which bytes of the replies are to be sent */
};

static char buffer[ROOM];
static char *answer, *replies;
static size_t answer_size, replies_size, frame_size, frames;
static int epoll;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct connection *connection, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(epoll, operation, connection->fd, &event)) fail("epoll_ctl");
}

static void end(struct connection *connection) {
    close(connection->fd);
    free(connection);
}

static void accept_all(int listening) {
    for (int one = 1, fd; (fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct connection *connection = calloc(1, sizeof *connection);
        connection->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* Send what is to be sent, and what the kernel does not take when it has room again. Return whether it is all gone. */
static int flush(struct connection *connection) {
    while (connection->sent < connection->to) {
        ssize_t sent = send(connection->fd, replies + connection->sent, connection->to - connection->sent, MSG_NOSIGNAL);
        if (sent < 0) return errno != EAGAIN;
        connection->sent += sent;
    }
    if (connection->to == replies_size) connection->sent = connection->to = 0;
    return 1;
}

static void received(struct connection *connection, size_t size) {
    if (!connection->open) {
        connection->open = size >= 4 && !memcmp(buffer + size - 4, "\r\n\r\n", 4);
        if (connection->open && send(connection->fd, answer, answer_size, MSG_NOSIGNAL) < 0) fail("send");
        return;
    }
    connection->got += size;
    size_t whole = connection->got / frame_size;
    connection->got %= frame_size;
    if (!whole) return;
    connection->to += whole * (replies_size / frames);
    if (!flush(connection)) watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

int main(int count, char **words) {
    if (count != 6) return fputs("floor PORT FRAME_SIZE FRAMES ANSWER_SIZE FILE\n", stderr), 2;
    frame_size = atol(words[2]);
    frames = atol(words[3]);
    answer_size = atol(words[4]);
    FILE *file = fopen(words[5], "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail(words[5]);
    replies_size = ftell(file) - answer_size;
    rewind(file);
    answer = malloc(answer_size + replies_size);
    if (fread(answer, 1, answer_size + replies_size, file) != answer_size + replies_size) fail(words[5]);
    replies = answer + answer_size;

    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(words[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 1024)) fail("listen");
    epoll = epoll_create1(0);
    struct epoll_event ready[EVENTS] = {{.events = EPOLLIN, .data.ptr = NULL}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listening, ready)) fail("epoll_ctl");

    for (;;) {
        int found = epoll_wait(epoll, ready, EVENTS, -1);
        for (int each = 0; each < found; each++) {
            struct connection *connection = ready[each].data.ptr;
            if (!connection) {
                accept_all(listening);
                continue;
            }
            if (ready[each].events & EPOLLOUT && flush(connection)) watch(connection, EPOLL_CTL_MOD, EPOLLIN);
            if (!(ready[each].events & ~EPOLLOUT)) continue;
            ssize_t size = recv(connection->fd, buffer, ROOM, 0);
            if (size > 0) received(connection, size);
            else if (!size || errno != EAGAIN) end(connection);
        }
    }
}
