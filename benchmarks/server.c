/* The loopback server of the benchmarks: small enough to read, fast enough never to be what is measured.
 *
 * One thread, epoll, HTTP/1.1 with keep-alive, every answer prepared before the first request. What is answered
 * depends on the last segment of the path alone, whatever stands before it:
 *
 *   small        200 bytes of JSON under 8 header fields; 401 unless the request is signed
 *   resources    the same
 *   open         the same, and no signature is asked for
 *   large        64 KiB of JSON, signed
 *   download-N   N MiB of bytes, signed
 *   events-N     N server-sent events, chunked, signed
 *   upload       counts the body that came with the request, answers {"received": count}, signed
 *
 * "Signed" means that the field Agentrun-Authorization is there: it keeps a contender from leaving the work out.
 * That the signature is right is for tests to say, not for a server whose cost must not show.
 *
 * Rules: a request body has a Content-Length (411 otherwise) and is counted, never kept. The port is printed on
 * standard output; the server ends when its standard input does, so it cannot outlive the benchmark.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEAD_LIMIT 8192
#define SMALL_BODY 200
#define LARGE_BODY (64 * 1024)
#define BLOCK (1024 * 1024)
#define SINK (1024 * 1024)

/* A body is `period` bytes, said over and over until `total` bytes have gone out. */
struct body {
    const char *bytes;
    size_t period;
    uint64_t total;
};

struct connection {
    int fd;
    int want_write;
    char in[HEAD_LIMIT];
    size_t in_size;
    uint64_t body_left;      /* of the request that is being read */
    uint64_t body_size;
    int reading_body;
    char route[64];
    int is_signed;
    char head[512];          /* of the answer that is being written */
    size_t head_size, head_sent;
    struct body body;
    uint64_t body_sent;
    const char *tail;
    size_t tail_size, tail_sent;
    char counted[64];        /* the body of an upload's answer */
    int writing;
};

static char small_body[SMALL_BODY + 1];
static char *large_body;
static char *block;
static char *sink;
static const char refusal[] = "{\"code\":\"ERR_FORBIDDEN\",\"requestId\":\"0\",\"message\":\"not signed\"}";
/* One event in one chunk: 0x36 = 54 bytes. */
static const char event[] = "36\r\ndata: {\"index\": 1234, \"delta\": \"some words of text\"}\n\n\r\n";
static const char last_chunk[] = "0\r\n\r\n";

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void prepare(void) {
    const char *start = "{\"code\":\"SUCCESS\",\"requestId\":\"5f0c9a4e-1b7d-4c3f-9a35-0d9b6f1c2e44\",\"data\":{"
                        "\"name\":\"resource-1\",\"status\":\"READY\",\"limit\":10,\"total\":1,\"padding\":\"";
    size_t used = strlen(start);
    memcpy(small_body, start, used);
    memset(small_body + used, 'x', SMALL_BODY - used - 3);
    memcpy(small_body + SMALL_BODY - 3, "\"}}", 3);

    const char *item = "{\"id\":\"sbx-0123456789\",\"status\":\"READY\",\"size\":1048576,\"tags\":[\"a\",\"b\"],"
                       "\"ratio\":0.25,\"active\":true},";
    large_body = malloc(LARGE_BODY);
    block = malloc(BLOCK);
    sink = malloc(SINK);
    if (!large_body || !block || !sink) die("malloc");
    used = (size_t)sprintf(large_body, "{\"code\":\"SUCCESS\",\"data\":[");
    while (used + strlen(item) + 64 < LARGE_BODY) {
        memcpy(large_body + used, item, strlen(item));
        used += strlen(item);
    }
    used--; /* the last comma */
    used += (size_t)sprintf(large_body + used, "],\"padding\":\"");
    memset(large_body + used, 'x', LARGE_BODY - used - 2);
    memcpy(large_body + LARGE_BODY - 2, "\"}", 2);
    for (size_t at = 0; at < BLOCK; at++) block[at] = (char)(at * 31 + at / 251);
}

/* The eight field lines that a gateway of the service sends, or as near as makes no difference to a parser. */
static void answer(struct connection *c, const char *status, const char *type, struct body body, int chunked) {
    char framing[64];
    if (chunked) sprintf(framing, "Transfer-Encoding: chunked");
    else sprintf(framing, "Content-Length: %llu", (unsigned long long)body.total);
    c->head_size = (size_t)snprintf(c->head, sizeof c->head,
        "HTTP/1.1 %s\r\n"
        "Date: Fri, 06 Mar 2026 12:00:00 GMT\r\n"
        "Content-Type: %s\r\n"
        "%s\r\n"
        "Connection: keep-alive\r\n"
        "Server: benchmark\r\n"
        "X-Acs-Request-Id: 5f0c9a4e-1b7d-4c3f-9a35-0d9b6f1c2e44\r\n"
        "X-Fc-Instance: c-65a1f3b2-1a2b3c4d5e6f\r\n"
        "Cache-Control: no-store\r\n"
        "\r\n", status, type, framing);
    c->head_sent = c->body_sent = c->tail_sent = 0;
    c->body = body;
    c->tail = chunked ? last_chunk : NULL;
    c->tail_size = chunked ? sizeof last_chunk - 1 : 0;
    c->writing = 1;
}

static void respond(struct connection *c) {
    unsigned long long count;
    if (strcmp(c->route, "open") != 0 && !c->is_signed) {
        answer(c, "401 Unauthorized", "application/json",
               (struct body){refusal, sizeof refusal - 1, sizeof refusal - 1}, 0);
    } else if (strcmp(c->route, "large") == 0) {
        answer(c, "200 OK", "application/json", (struct body){large_body, LARGE_BODY, LARGE_BODY}, 0);
    } else if (strcmp(c->route, "upload") == 0) {
        size_t size = (size_t)sprintf(c->counted, "{\"received\": %llu}", (unsigned long long)c->body_size);
        answer(c, "200 OK", "application/json", (struct body){c->counted, size, size}, 0);
    } else if (sscanf(c->route, "download-%llu", &count) == 1) {
        answer(c, "200 OK", "application/octet-stream", (struct body){block, BLOCK, count * BLOCK}, 0);
    } else if (sscanf(c->route, "events-%llu", &count) == 1) {
        size_t size = sizeof event - 1;
        answer(c, "200 OK", "text/event-stream", (struct body){event, size, count * size}, 1);
    } else {
        answer(c, "200 OK", "application/json", (struct body){small_body, SMALL_BODY, SMALL_BODY}, 0);
    }
}

/* 1 when the whole answer has gone out, 0 when the socket is full, -1 when the peer is gone. */
static int send_some(struct connection *c) {
    while (c->writing) {
        struct iovec parts[3];
        int n = 0;
        if (c->head_sent < c->head_size)
            parts[n++] = (struct iovec){c->head + c->head_sent, c->head_size - c->head_sent};
        size_t within = 0, piece = 0;
        if (c->body_sent < c->body.total) {
            within = (size_t)(c->body_sent % c->body.period);
            piece = c->body.period - within;
            if (piece > c->body.total - c->body_sent) piece = (size_t)(c->body.total - c->body_sent);
            parts[n++] = (struct iovec){(char *)c->body.bytes + within, piece};
        }
        if (c->body_sent + piece == c->body.total && c->tail_sent < c->tail_size)
            parts[n++] = (struct iovec){(char *)c->tail + c->tail_sent, c->tail_size - c->tail_sent};
        if (n == 0) {
            c->writing = 0;
            return 1;
        }
        ssize_t sent = writev(c->fd, parts, n);
        if (sent < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN ? 0 : -1;
        }
        size_t left = (size_t)sent, step = c->head_size - c->head_sent;
        if (step > left) step = left;
        c->head_sent += step;
        left -= step;
        step = piece < left ? piece : left;
        c->body_sent += step;
        left -= step;
        c->tail_sent += left;
    }
    return 1;
}

/* Reads what a request line and the two fields that matter say. -1: a body without a length. */
static int read_head(struct connection *c, size_t size) {
    char *end = memchr(c->in, '\n', size);
    char *target = memchr(c->in, ' ', (size_t)(end - c->in));
    if (!target) return -1;
    char *stop = target + 1 + strcspn(target + 1, " ?\r\n");
    char *segment = stop;
    while (segment > target && segment[-1] != '/') segment--;
    size_t length = (size_t)(stop - segment);
    if (length >= sizeof c->route) length = sizeof c->route - 1;
    memcpy(c->route, segment, length);
    c->route[length] = 0;
    c->is_signed = 0;
    c->body_size = 0;
    for (char *line = end + 1; line < c->in + size - 2; line = memchr(line, '\n', HEAD_LIMIT) + 1) {
        if (strncasecmp(line, "agentrun-authorization:", 23) == 0) c->is_signed = 1;
        else if (strncasecmp(line, "content-length:", 15) == 0) c->body_size = strtoull(line + 15, NULL, 10);
        else if (strncasecmp(line, "transfer-encoding:", 18) == 0) return -1;
    }
    c->body_left = c->body_size;
    return 0;
}

/* Takes requests from what has arrived until an answer is under way or more is needed; -1 closes. */
static int advance(struct connection *c) {
    for (;;) {
        if (c->writing) return 0;
        if (c->reading_body) {
            size_t taken = c->in_size < c->body_left ? c->in_size : (size_t)c->body_left;
            memmove(c->in, c->in + taken, c->in_size - taken);
            c->in_size -= taken;
            c->body_left -= taken;
            if (c->body_left) return 0;
            c->reading_body = 0;
            respond(c);
            if (send_some(c) < 0) return -1;
            continue;
        }
        char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
        if (!end) return c->in_size == HEAD_LIMIT ? -1 : 0;
        size_t size = (size_t)(end - c->in) + 4;
        if (read_head(c, size) < 0) {
            static const char no[] = "HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            ssize_t ignored = write(c->fd, no, sizeof no - 1);
            (void)ignored;
            return -1;
        }
        memmove(c->in, c->in + size, c->in_size - size);
        c->in_size -= size;
        c->reading_body = 1;
    }
}

static int readable(struct connection *c) {
    for (;;) {
        ssize_t got;
        if (c->reading_body && c->in_size == 0 && c->body_left > HEAD_LIMIT) {
            size_t room = c->body_left < SINK ? (size_t)c->body_left : SINK;
            got = read(c->fd, sink, room);
            if (got > 0) c->body_left -= (uint64_t)got;
            if (got > 0 && c->body_left) continue;
        } else {
            got = read(c->fd, c->in + c->in_size, HEAD_LIMIT - c->in_size);
            if (got > 0) c->in_size += (size_t)got;
        }
        if (got == 0) return -1;
        if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
        if (advance(c) < 0) return -1;
        /* A small request is one read: a second one, to hear EAGAIN, would only cost. */
        if (!c->reading_body || c->writing) return 0;
    }
}

static void watch(int epoll, int operation, struct connection *c, int want_write) {
    struct epoll_event interest = {.events = EPOLLIN | (want_write ? EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &interest) < 0) die("epoll_ctl");
    c->want_write = want_write;
}

static void accept_all(int epoll, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        watch(epoll, EPOLL_CTL_ADD, c, 0);
    }
}

static void serve(int epoll, struct epoll_event *ready) {
    struct connection *c = ready->data.ptr;
    int verdict = 0;
    if (ready->events & EPOLLOUT) {
        verdict = send_some(c);
        if (verdict > 0) verdict = advance(c);
    }
    if (verdict >= 0 && ready->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) verdict = readable(c);
    if (verdict < 0) {
        close(c->fd);
        free(c);
    } else if (c->writing != c->want_write) {
        watch(epoll, EPOLL_CTL_MOD, c, c->writing);
    }
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    prepare();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0) die("bind");
    if (listen(listener, 4096) < 0) die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &size) < 0) die("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &interest) < 0) die("epoll");
    interest.data.ptr = NULL;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &interest) < 0) die("standard input must be a pipe");
    for (;;) {
        struct epoll_event ready[256];
        int n = epoll_wait(epoll, ready, 256, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr == NULL) return 0;
            if (ready[i].data.ptr == &listener) accept_all(epoll, listener);
            else serve(epoll, &ready[i]);
        }
    }
}
