/* relayload - light load generator for a caBLE v2 / FIDO hybrid tunnel relay.
 *
 * Speaks only the two public end points:
 *   GET /cable/new/<tunnel-id>                  -> 101 + X-caBLE-Routing-ID
 *   GET /cable/connect/<routing-id>/<tunnel-id> -> 101
 * over ws:// or wss:// (build with -DWITH_TLS), one thread, epoll, no
 * allocation in the hot path.  See README.md.
 *
 * Output: one JSON object on stdout.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { S_FREE, S_CONN, S_TLS, S_HTTP, S_OPEN, S_CLOSING };
enum { M_TX, M_STREAM, M_IDLE, M_TLS };

#define RBUF 32768
#define OBUF 16384

struct pair;
struct conn {
    int fd, state, wantw, role;  /* role 0 = phone (new), 1 = laptop (connect) */
    int got_close, sent_close;
    struct pair *p;
#ifdef WITH_TLS
    SSL *ssl;
#endif
    uint32_t rlen, olen, ooff, rcap, ocap;
    unsigned char *rbuf, *obuf;
    uint64_t tsent[64]; uint32_t sh, st; /* send times of frames in flight to the peer */
};
struct pair {
    struct conn c[2];
    char tid[33], rid[7];
    int active, phase, sent, rcvd, failed, id;
    uint64_t t0, t_a, t_b;
    int inflight[2];
};

static const char *host = "127.0.0.1", *port = "8080", *hosthdr;
static int mode = M_TX, conc = 16, nframes = 8, size = 256, window = 4, tls, srcs = 1,
           deflate, npairs = 1, lenient, tls12, check = 1;
static double dur = 3, warm = 0.5, rate, hold = 2;
static char pids[256];
static struct sockaddr_storage dst, dst2; static socklen_t dstlen, dstlen2; static const char *cport;
static int ep;
static struct pair *P; static int nP, *freeP, nfree;
static uint64_t tnow, tend, next_arrival;
static uint64_t ok_tx, fail_tx, frames_rx, bytes_rx, started, tls_ok, err_connect, err_http, err_proto, err_eof, err_early, missed;
static int measuring, opening, opened;
static uint64_t rs = 88172645463325252ULL;
static uint64_t xr(void) { rs ^= rs << 13; rs ^= rs >> 7; rs ^= rs << 17; return rs; }
static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ULL + t.tv_nsec; }

/* log-linear histogram, ns, 64 sub-buckets per octave */
#define HN (64 * 64)
struct hist { uint64_t b[HN], n, max; };
static struct hist h_frame, h_tx, h_new, h_con;
static void hadd(struct hist *h, uint64_t v) {
    if (!measuring) return;
    int i; if (v < 64) i = v; else { int e = 63 - __builtin_clzll(v); i = (e - 5) * 64 + ((v >> (e - 6)) & 63); }
    h->b[i]++; h->n++; if (v > h->max) h->max = v;
}
static double hq(struct hist *h, double q) {
    if (!h->n) return 0;
    uint64_t k = (uint64_t)(q * (h->n - 1)), s = 0;
    for (int i = 0; i < HN; i++) { s += h->b[i]; if (s > k) { if (i < 64) return i / 1e3; int e = i / 64 + 5; return (double)((64ULL + (i & 63)) << (e - 6)) / 1e3; } }
    return h->max / 1e3;
}
static void hprint(const char *n, struct hist *h) {
    printf("\"%s_us\":{\"n\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f},", n, (unsigned long long)h->n, hq(h, .5), hq(h, .9), hq(h, .99), hq(h, .999), h->max / 1e3);
}

/* ns on a CPU of one thread, to the nanosecond: the ticks in stat are too coarse for a second at low load */
static long thread_ns(int pid, const char *task) {
    char f[400]; long ns = 0; snprintf(f, sizeof f, "/proc/%d/task/%s/schedstat", pid, task);
    FILE *fp = fopen(f, "r"); if (!fp) return 0;
    if (fscanf(fp, "%ld", &ns) != 1) ns = 0;
    fclose(fp); return ns;
}
/* sum over the given pids and their descendants */
static long tree(int pid, int what) {  /* 0: RSS kB, 1: PSS kB, 2: CPU ns */
    char f[64], l[512]; long v = 0; FILE *fp;
    if (what != 2) {
        snprintf(f, 64, what ? "/proc/%d/smaps_rollup" : "/proc/%d/status", pid); fp = fopen(f, "r"); if (!fp) return 0;
        const char *k = what ? "Pss:" : "VmRSS:";
        while (fgets(l, 512, fp)) if (!strncmp(l, k, strlen(k))) { v = atol(l + strlen(k)); break; }
        fclose(fp);
    }
    snprintf(f, 64, "/proc/%d/task", pid); DIR *d = opendir(f); if (!d) return v;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        if (what == 2) v += thread_ns(pid, e->d_name);
        char g[400]; snprintf(g, 400, "/proc/%d/task/%s/children", pid, e->d_name);
        fp = fopen(g, "r"); if (!fp) continue;
        for (int c; fscanf(fp, "%d", &c) == 1;) v += tree(c, what);
        fclose(fp);
    }
    closedir(d); return v;
}
static long proc(int what) { long v = 0; char b[256]; strcpy(b, pids); for (char *s = strtok(b, ","); s; s = strtok(0, ",")) v += tree(atoi(s), what); return v; }
static long sockmem(void) { FILE *f = fopen("/proc/net/sockstat", "r"); char l[256]; long m = 0; if (!f) return 0; while (fgets(l, 256, f)) { char *q = strstr(l, "TCP: inuse"); if (q && (q = strstr(l, " mem "))) m = atol(q + 5); } fclose(f); return m * 4; }

#ifdef WITH_TLS
static SSL_CTX *ctx;
#endif

static void ctl(struct conn *c, int w) {
    struct epoll_event e = { .events = EPOLLIN | (w ? EPOLLOUT : 0), .data.ptr = c };
    if (c->wantw != w) { epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e); c->wantw = w; }
}
static void cclose(struct conn *c) {
    if (c->fd < 0) return;
#ifdef WITH_TLS
    if (c->ssl) { SSL_free(c->ssl); c->ssl = 0; }
#endif
    close(c->fd); c->fd = -1; c->state = S_FREE;
}
static void start_pair(struct pair *p);
static void pair_done(struct pair *p, int ok);

static int raw_write(struct conn *c, const void *b, int n) {
#ifdef WITH_TLS
    if (c->ssl) { int r = SSL_write(c->ssl, b, n); if (r > 0) return r; int e = SSL_get_error(c->ssl, r); ERR_clear_error(); return (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) ? 0 : -1; }
#endif
    int r = send(c->fd, b, n, MSG_NOSIGNAL); if (r < 0) return (errno == EAGAIN) ? 0 : -1; return r;
}
static int raw_read(struct conn *c, void *b, int n) { /* >0, 0 again, -1 error, -2 eof */
#ifdef WITH_TLS
    if (c->ssl) { int r = SSL_read(c->ssl, b, n); if (r > 0) return r; int e = SSL_get_error(c->ssl, r); ERR_clear_error(); return (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) ? 0 : e == SSL_ERROR_ZERO_RETURN ? -2 : -1; }
#endif
    int r = recv(c->fd, b, n, 0); if (r == 0) return -2; if (r < 0) return errno == EAGAIN ? 0 : -1; return r;
}
static int flush(struct conn *c) {
    while (c->ooff < c->olen) { int r = raw_write(c, c->obuf + c->ooff, c->olen - c->ooff); if (r < 0) return -1; if (!r) { ctl(c, 1); return 0; } c->ooff += r; }
    c->ooff = c->olen = 0; ctl(c, 0); return 0;
}
static unsigned char *oneed(struct conn *c, int n) {
    if (c->olen + n > c->ocap) { c->ocap = (c->olen + n) * 2; if (c->ocap < 1024) c->ocap = 1024; c->obuf = realloc(c->obuf, c->ocap); }
    return c->obuf + c->olen;
}
static int ws_send(struct conn *c, int op, const unsigned char *d, int n) {
    unsigned char *o = oneed(c, n + 16); int i = 0; uint32_t m = (uint32_t)xr();
    o[i++] = 0x80 | op;
    if (n < 126) o[i++] = 0x80 | n;
    else if (n < 65536) { o[i++] = 0x80 | 126; o[i++] = n >> 8; o[i++] = n; }
    else { o[i++] = 0x80 | 127; for (int k = 7; k >= 0; k--) o[i++] = (uint64_t)n >> (8 * k); }
    memcpy(o + i, &m, 4); unsigned char *mk = o + i; i += 4;
    int k = 0; uint64_t mm = m | ((uint64_t)m << 32);
    for (; k + 8 <= n; k += 8) { uint64_t v; memcpy(&v, d + k, 8); v ^= mm; memcpy(o + i + k, &v, 8); }
    for (; k < n; k++) o[i + k] = d[k] ^ mk[k & 3];
    c->olen += i + n; return flush(c);
}
static unsigned char payload[1 << 20];
/* frame content: 4 bytes sequence, 2 bytes pair id, then a fixed pattern */
static int send_frame(struct conn *c, int seq) {
    uint32_t s = seq; memcpy(payload, &s, 4); uint16_t id = c->p->id; if (size >= 6) memcpy(payload + 4, &id, 2);
    struct conn *o = &c->p->c[!c->role]; o->tsent[o->sh++ & 63] = now();
    return ws_send(c, 2, payload, size);
}
static void http_req(struct conn *c) {
    char b[1024]; static const char *b64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"; char key[25];
    for (int i = 0; i < 21; i++) key[i] = b64[xr() & 63];
    key[21] = 'A'; key[22] = key[23] = '='; key[24] = 0;
    int n = snprintf(b, sizeof b, "GET /cable/%s%s%s%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: fido.cable\r\nOrigin: %s://%s\r\n%s\r\n",
        c->role ? "connect/" : "new/", c->role ? c->p->rid : "", c->role ? "/" : "", c->p->tid, hosthdr, key, tls ? "https" : "http", hosthdr, deflate ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" : "");
    memcpy(oneed(c, n), b, n); c->olen += n; c->state = S_HTTP;
    if (flush(c) < 0) { err_connect++; pair_done(c->p, 0); }
}
static int open_conn(struct conn *c) {
    int fd = socket(dst.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1; if (fd < 0) { err_connect++; return -1; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, 4);
    if (srcs > 1 && dst.ss_family == AF_INET) { struct sockaddr_in s = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001 + xr() % srcs) };
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, 4); bind(fd, (void *)&s, sizeof s); }
    c->fd = fd; c->rlen = c->olen = c->ooff = 0; c->got_close = c->sent_close = 0; c->sh = c->st = 0; c->state = S_CONN; c->wantw = 1;
    if (connect(fd, (void *)(c->role ? &dst2 : &dst), c->role ? dstlen2 : dstlen) < 0 && errno != EINPROGRESS) { close(fd); c->fd = -1; err_connect++; return -1; }
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT, .data.ptr = c }; epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e); return 0;
}
static void start_pair(struct pair *p) {
    static const char *hx = "0123456789abcdef"; for (int i = 0; i < 32; i += 16) { uint64_t v = xr() * 0x9E3779B97F4A7C15ULL; for (int k = 0; k < 16; k++) p->tid[i + k] = hx[(v >> (4 * k)) & 15]; }
    strcpy(p->rid, "000000"); p->active = 1; p->sent = p->rcvd = p->failed = 0; p->t0 = now(); p->inflight[0] = p->inflight[1] = 0; started++;
    p->c[0].fd = p->c[1].fd = -1; p->phase = 0;
    if (open_conn(&p->c[0]) < 0) pair_done(p, 0);
}
static void pair_done(struct pair *p, int ok) {
    if (!p->active) return;
    cclose(&p->c[0]); cclose(&p->c[1]); p->active = 0;
    if (ok) { if (measuring) ok_tx++; hadd(&h_tx, now() - p->t0); } else if (measuring || mode == M_IDLE) fail_tx++;
    if (mode == M_IDLE) { if (!ok) opening--; return; }
    if (mode == M_STREAM && ok) return;
    freeP[nfree++] = p->id;
}
static void pair_open(struct pair *p) { /* both 101 */
    if (mode == M_TX) { if (nframes) { p->sent = 1; if (send_frame(&p->c[1], 0) < 0) { err_eof++; pair_done(p, 0); } } else { p->c[1].sent_close = 1; ws_send(&p->c[1], 8, (unsigned char *)"\x03\xe8", 2); } }
    else if (mode == M_IDLE) { opening--; opened++; }
    else if (mode == M_STREAM) { opened++; p->phase = 2; }
}
static void stream_pump(struct pair *p) {
    for (int r = 0; r < 2; r++) while (p->inflight[r] < window && p->c[r].ooff == p->c[r].olen) { p->inflight[r]++; if (send_frame(&p->c[r], p->sent++) < 0) { err_eof++; pair_done(p, 0); return; } }
}
static int on_frame(struct conn *c, int op, unsigned char *d, uint64_t n, int rsv) {
    struct pair *p = c->p;
    if (op == 9) { ws_send(c, 10, d, n > 125 ? 125 : n); return 0; }
    if (op == 10) return 0;
    if (op == 8) {
        c->got_close = 1;
        if (!c->sent_close) { c->sent_close = 1; ws_send(c, 8, d, n >= 2 ? 2 : 0); }
        if (mode != M_TX || p->rcvd < nframes) { err_early++; pair_done(p, 0); return -1; }
        if (p->c[0].got_close && p->c[1].got_close) { pair_done(p, 1); return -1; }
        return 0;
    }
    if (op != 2 || (!rsv && n != (uint64_t)size)) { err_proto++; pair_done(p, 0); return -1; }
    uint64_t t = now(); hadd(&h_frame, t - c->tsent[c->st++ & 63]); if (measuring) { frames_rx++; bytes_rx += n; }
    if (mode == M_TX) {
        uint32_t s; memcpy(&s, d, 4); uint16_t id = p->id, gid = id; if (size >= 6) memcpy(&gid, d + 4, 2);
        if (check && !rsv && !lenient && (s != (uint32_t)p->rcvd || gid != id)) { err_proto++; pair_done(p, 0); return -1; }
        p->rcvd++;
        if (p->sent < nframes) { int q = p->sent++; if (send_frame(c, q) < 0) { err_eof++; pair_done(p, 0); return -1; } }
        else { c->sent_close = 1; if (ws_send(c, 8, (unsigned char *)"\x03\xe8", 2) < 0) { pair_done(p, 0); return -1; } }
    } else if (mode == M_STREAM) { p->inflight[!c->role]--; if (tnow < tend) stream_pump(p); if (!p->active) return -1; }
    else if (mode == M_IDLE) p->rcvd++;
    return 0;
}
static void on_http(struct conn *c) {
    if (c->rlen < 4) return;
    unsigned char *e = memmem(c->rbuf, c->rlen, "\r\n\r\n", 4); if (!e) return;
    struct pair *p = c->p; *e = 0; char *h = (char *)c->rbuf;
    if (memcmp(h, "HTTP/1.1 101", 12)) { err_http++; static int shown; if (!shown++) fprintf(stderr, "refused: %.60s\n", h); pair_done(p, 0); return; }
    int used = (int)(e + 4 - c->rbuf);
    if (!c->role) {
        char *r = strcasestr(h, "\nx-cable-routing-id:"); if (!r && lenient) r = "....................000000"; if (!r) { static int said; err_http++; if (!said++) fprintf(stderr, "refused: no X-caBLE-Routing-ID in the 101 response\n"); pair_done(p, 0); return; }
        r += 20; while (*r == ' ') r++; memcpy(p->rid, r, 6); p->rid[6] = 0;
        p->t_a = now(); hadd(&h_new, p->t_a - p->t0);
    } else { p->t_b = now(); hadd(&h_con, p->t_b - p->t_a); }
    memmove(c->rbuf, c->rbuf + used, c->rlen - used); c->rlen -= used; c->state = S_OPEN;
    if (!c->role) { if (open_conn(&p->c[1]) < 0) pair_done(p, 0); } else pair_open(p);
}
static int parse(struct conn *c) {
    uint32_t o = 0;
    while (c->rlen - o >= 2) {
        unsigned char *b = c->rbuf + o; uint64_t n = b[1] & 127; int hl = 2; uint32_t av = c->rlen - o;
        if (n == 126) { if (av < 4) break; n = b[2] << 8 | b[3]; hl = 4; } else if (n == 127) { if (av < 10) break; n = 0; for (int i = 0; i < 8; i++) n = n << 8 | b[2 + i]; hl = 10; }
        int mk = b[1] & 128; if (mk && !lenient) { err_proto++; pair_done(c->p, 0); return -1; }
        if (mk) hl += 4;
        if (n > (1 << 20)) { err_proto++; pair_done(c->p, 0); return -1; }
        if (av < hl + n) { if (hl + n + o > c->rcap) { c->rcap = hl + n + o + 1024; c->rbuf = realloc(c->rbuf, c->rcap); } break; }
        if (!(b[0] & 128)) { err_proto++; pair_done(c->p, 0); return -1; }
        if (on_frame(c, b[0] & 15, b + hl, n, b[0] & 0x40) < 0) return -1;
        o += hl + n;
    }
    if (o) { memmove(c->rbuf, c->rbuf + o, c->rlen - o); c->rlen -= o; }
    return 0;
}
static void on_event(struct conn *c, uint32_t ev) {
    if (c->fd < 0) return;
    struct pair *p = c->p;
    if (c->state == S_CONN) {
        int er = 0; socklen_t l = 4; getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &er, &l);
        if (er) { err_connect++; pair_done(p, 0); return; }
        if (!(ev & EPOLLOUT)) return;
#ifdef WITH_TLS
        if (tls) { c->ssl = SSL_new(ctx); SSL_set_fd(c->ssl, c->fd); SSL_set_tlsext_host_name(c->ssl, hosthdr); c->state = S_TLS; } else
#endif
        { ctl(c, 0); http_req(c); return; }
    }
#ifdef WITH_TLS
    if (c->state == S_TLS) {
        int r = SSL_connect(c->ssl);
        if (r != 1) { int e = SSL_get_error(c->ssl, r); if (e == SSL_ERROR_WANT_READ) { ctl(c, 0); return; } if (e == SSL_ERROR_WANT_WRITE) { ctl(c, 1); return; } ERR_clear_error(); err_connect++; pair_done(p, 0); return; }
        if (mode == M_TLS) { if (measuring) tls_ok++; pair_done(p, 1); return; }
        ctl(c, 0); http_req(c); return;
    }
#endif
    if (ev & EPOLLOUT) { if (flush(c) < 0) { err_eof++; pair_done(p, 0); return; } if (mode == M_STREAM && p->phase == 2 && tnow < tend) { stream_pump(p); if (!p->active) return; } }
    if (!(ev & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    for (;;) {
        if (c->rcap - c->rlen < 1024) { c->rcap = c->rcap ? c->rcap * 2 : (mode == M_IDLE ? 1024 : RBUF); c->rbuf = realloc(c->rbuf, c->rcap); }
        int want = c->rcap - c->rlen, r = raw_read(c, c->rbuf + c->rlen, want);
        if (r == 0) return;
        if (r < 0) {
            /* end of stream: fine once the transaction's frames are all there and a close was seen or sent */
            if (mode == M_TX && p->rcvd >= nframes && (c->got_close || c->sent_close)) { c->got_close = 1; if (p->c[0].got_close && p->c[1].got_close) pair_done(p, 1); else { cclose(c); } return; }
            if (mode == M_TX && p->rcvd >= nframes && lenient) { pair_done(p, 1); return; }
            if (c->state == S_HTTP) err_http++; else err_eof++;
            if (mode == M_IDLE || mode == M_STREAM) opened--;
            pair_done(p, 0); return;
        }
        c->rlen += r;
        if (c->state == S_HTTP) on_http(c);
        if (c->fd < 0) return;
        if (c->state == S_OPEN && parse(c) < 0) return;
        if (c->fd < 0) return;
        if (r < want) { 
#ifdef WITH_TLS
            if (c->ssl && SSL_has_pending(c->ssl)) continue;
            if (c->ssl) { continue; }
#endif
            return; }
    }
}
static void fill(void) {
    if (mode == M_IDLE) { while (opening < conc && nfree) { opening++; start_pair(&P[freeP[--nfree]]); } return; }
    if (rate > 0) { while (tnow >= next_arrival && tnow < tend) { next_arrival += (uint64_t)(1e9 / rate); if (nfree) start_pair(&P[freeP[--nfree]]); else missed++; } return; }
    if (mode == M_STREAM) return;
    if (tnow < tend) while (nfree) start_pair(&P[freeP[--nfree]]);
}
static void loop_until(uint64_t t, int (*stop)(void)) {
    struct epoll_event ev[256];
    while ((tnow = now()) < t) {
        if (stop && stop()) return;
        fill();
        int to = (int)((t - tnow) / 1000000) + 1; if (rate > 0 && next_arrival < t) { int64_t d = (int64_t)(next_arrival - now()); to = d <= 0 ? 0 : (int)(d / 1000000) + (d > 1000000 ? 0 : 1); if (d < 1000000) to = d <= 0 ? 0 : 1; }
        if (to > 50) to = 50;
        int n = epoll_wait(ep, ev, 256, to); tnow = now();
        for (int i = 0; i < n; i++) on_event(ev[i].data.ptr, ev[i].events);
    }
}
static int all_open(void) { return opened + (int)fail_tx >= nP; }
static int st_open(void) { return opened + (int)fail_tx + (int)err_http >= npairs; }
static int quiet(void) { return nfree == nP; }
static int all_echo(void) { int k = 0; for (int i = 0; i < nP; i++) if (P[i].active && P[i].rcvd >= 2) k++; return k >= opened; }

int main(int ac, char **av) {
    static struct option lo[] = { {"host",1,0,'h'},{"port",1,0,'p'},{"mode",1,0,'m'},{"concurrency",1,0,'c'},{"frames",1,0,'f'},{"size",1,0,'s'},{"duration",1,0,'d'},{"warmup",1,0,'w'},{"rate",1,0,'r'},{"window",1,0,'W'},{"pairs",1,0,'n'},{"tls",0,0,'t'},{"sources",1,0,'S'},{"deflate",0,0,'D'},{"server-pid",1,0,'P'},{"hold",1,0,'H'},{"lenient",0,0,'L'},{"host-header",1,0,'N'},{"connect-port",1,0,'C'},{"tls12",0,0,'2'},{"help",0,0,'?'},{0,0,0,0} };
    int o; while ((o = getopt_long(ac, av, "h:p:m:c:f:s:d:w:r:W:n:tS:DP:H:LN:C:2?", lo, 0)) != -1) switch (o) {
        case 'h': host = optarg; break; case 'p': port = optarg; break;
        case 'm': mode = !strcmp(optarg, "tx") ? M_TX : !strcmp(optarg, "stream") ? M_STREAM : !strcmp(optarg, "idle") ? M_IDLE : M_TLS; break;
        case 'c': conc = atoi(optarg); break; case 'f': nframes = atoi(optarg); break; case 's': size = atoi(optarg); break; case 'd': dur = atof(optarg); break; case 'w': warm = atof(optarg); break;
        case 'r': rate = atof(optarg); break; case 'W': window = atoi(optarg); break; case 'n': npairs = atoi(optarg); break; case 't': tls = 1; break; case 'S': srcs = atoi(optarg); break; case 'D': deflate = 1; break;
        case 'P': snprintf(pids, sizeof pids, "%s", optarg); break; case 'H': hold = atof(optarg); break; case 'L': lenient = 1; break; case 'N': hosthdr = optarg; break; case '2': tls12 = 1; break; case 'C': cport = optarg; break;
        default: fprintf(stderr, "see README.md\n"); return 2; }
    if (!hosthdr) hosthdr = host;
    if (window > 32) window = 32;
    if (size < 4) size = 4;
    if (size > (1 << 20)) size = 1 << 20;
    for (int i = 0; i < (1 << 20); i++) payload[i] = (unsigned char)(i * 31 + 7);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl = { 0 }; getrlimit(RLIMIT_NOFILE, &rl); rl.rlim_cur = rl.rlim_max; setrlimit(RLIMIT_NOFILE, &rl);
    struct addrinfo hi = { .ai_socktype = SOCK_STREAM }, *ai; if (getaddrinfo(host, port, &hi, &ai)) { fprintf(stderr, "cannot resolve\n"); return 2; }
    memcpy(&dst, ai->ai_addr, ai->ai_addrlen); dstlen = ai->ai_addrlen; if (getaddrinfo(host, cport ? cport : port, &hi, &ai)) return 2;
    memcpy(&dst2, ai->ai_addr, ai->ai_addrlen); dstlen2 = ai->ai_addrlen;
    if (tls) {
#ifdef WITH_TLS
        ctx = SSL_CTX_new(TLS_client_method()); SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, 0); SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
        if (tls12) SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
#else
        fprintf(stderr, "built without TLS\n"); return 2;
#endif
    }
    ep = epoll_create1(0); rs ^= now() * 0x9E3779B97F4A7C15ULL ^ getpid();
    nP = mode == M_IDLE || mode == M_STREAM ? npairs : rate > 0 ? 4096 : conc; P = calloc(nP, sizeof *P); freeP = calloc(nP, sizeof *freeP);
    for (int i = 0; i < nP; i++) { P[i].id = i; P[i].c[0].fd = P[i].c[1].fd = -1; P[i].c[0].p = P[i].c[1].p = &P[i]; P[i].c[1].role = 1; freeP[nfree++] = nP - 1 - i; }
    struct rusage u0, u1; uint64_t c0, c1; long s0 = 0, s1 = 0, r0 = 0, r1 = 0, ps0 = 0, ps1 = 0, k0, k1 = 0; int alive = 0, echoed = 0; double openrate = 0;
    if (*pids) { r0 = proc(0); ps0 = proc(1); } k0 = sockmem();
    uint64_t topen = now(); next_arrival = topen; tend = ~0ULL;
    if (mode == M_IDLE) {
        loop_until(topen + 120000000000ULL, all_open); openrate = opened / ((now() - topen) / 1e9);
        fprintf(stderr, "holding %d\n", opened);
        int k = opened; loop_until(now() + (uint64_t)(hold * 1e9), 0); alive = opened; (void)k;
        if (*pids) { r1 = proc(0); ps1 = proc(1); } k1 = sockmem();
        for (int i = 0; i < nP; i++) if (P[i].active) { send_frame(&P[i].c[1], 0); if (P[i].active) send_frame(&P[i].c[0], 0); }
        loop_until(now() + 15000000000ULL, all_echo); for (int i = 0; i < nP; i++) if (P[i].active && P[i].rcvd >= 2) echoed++;
    } else if (mode == M_STREAM) {
        for (int i = 0; i < npairs; i++) { start_pair(&P[freeP[--nfree]]); }
        loop_until(now() + 20000000000ULL, st_open);
        for (int i = 0; i < nP; i++) if (P[i].active && P[i].phase == 2) stream_pump(&P[i]);
    }
    double el = 0; double su = 0, gu = 0;
    if (mode != M_IDLE) {
        next_arrival = now(); loop_until(now() + (uint64_t)(warm * 1e9), 0);
        measuring = 1; getrusage(RUSAGE_SELF, &u0); c0 = now(); if (*pids) s0 = proc(2);
        loop_until(c0 + (uint64_t)(dur * 1e9), 0);
        c1 = now(); getrusage(RUSAGE_SELF, &u1); if (*pids) s1 = proc(2); measuring = 0; tend = 0; el = (c1 - c0) / 1e9;
        gu = ((u1.ru_utime.tv_sec - u0.ru_utime.tv_sec) + (u1.ru_stime.tv_sec - u0.ru_stime.tv_sec) + (u1.ru_utime.tv_usec - u0.ru_utime.tv_usec) / 1e6 + (u1.ru_stime.tv_usec - u0.ru_stime.tv_usec) / 1e6) / el;
        su = (s1 - s0) / 1e9 / el;
        tend = 1; loop_until(now() + 500000000ULL, quiet);
    }
    printf("{\"mode\":\"%s\",\"tls\":%d,\"size\":%d,\"frames_per_tx\":%d,\"concurrency\":%d,\"pairs\":%d,\"window\":%d,\"rate\":%.1f,\"seconds\":%.3f,", mode == M_TX ? "tx" : mode == M_STREAM ? "stream" : mode == M_IDLE ? "idle" : "tls", tls, size, nframes, conc, npairs, window, rate, el);
    if (mode == M_TX) printf("\"tx_per_s\":%.1f,\"ok\":%llu,\"failed\":%llu,", ok_tx / el, (unsigned long long)ok_tx, (unsigned long long)fail_tx);
    if (mode == M_TX || mode == M_STREAM) printf("\"frames_per_s\":%.1f,\"mbytes_per_s\":%.2f,", frames_rx / el, bytes_rx / el / 1e6);
    if (mode == M_TLS) printf("\"handshakes_per_s\":%.1f,", tls_ok / el);
    if (mode == M_IDLE) printf("\"opened\":%d,\"alive_after_hold\":%d,\"echoed\":%d,\"open_per_s\":%.1f,\"rss_kb_before\":%ld,\"rss_kb_after\":%ld,\"pss_kb_before\":%ld,\"pss_kb_after\":%ld,\"rss_kb_per_tunnel\":%.2f,\"pss_kb_per_tunnel\":%.2f,\"kernel_tcp_kb_before\":%ld,\"kernel_tcp_kb_after\":%ld,", opened, alive, echoed, openrate, r0, r1, ps0, ps1, opened ? (double)(r1 - r0) / opened : 0, opened ? (double)(ps1 - ps0) / opened : 0, k0, k1);
    if (mode == M_TX) { hprint("transaction", &h_tx); hprint("connect_new", &h_new); hprint("connect_peer", &h_con); }
    if (mode == M_TX || mode == M_STREAM) hprint("frame", &h_frame);
    printf("\"generator_cpu\":%.3f,\"server_cpu\":%.3f,\"errors\":{\"connect\":%llu,\"http\":%llu,\"proto\":%llu,\"eof\":%llu,\"early_close\":%llu,\"missed_arrivals\":%llu}}\n", gu, su, (unsigned long long)err_connect, (unsigned long long)err_http, (unsigned long long)err_proto, (unsigned long long)err_eof, (unsigned long long)err_early, (unsigned long long)missed);
    return 0;
}
