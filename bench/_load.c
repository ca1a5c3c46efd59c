/* An open-loop load of polls and signed check-ins over HTTP/1.1 connections: at most CONNECTIONS,
   kept as a proxy keeps them; with a number below 0 a new one for each request, at most so many
   at once.

   load PORT CONNECTIONS SECONDS POLLS_PER_S CHECK_INS_PER_S TOKENS ETAGS CHECK_INS FIRST

   TOKENS has a device's read token per line; ETAGS 24 bytes per device, which are read and written,
   so that a device's next poll sends what its last answer said. CHECK_INS has a signed body per
   line, each sent once, from line FIRST on. Requests leave by the clock, whatever the answers do,
   and a request's time counts from when it was due: a server that stalls is charged for all who
   wait. POLLS_PER_S 0: none; -1: as fast as answers come, for SECONDS; -2: the same, each device
   once. Prints JSON. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ETAG 24
#define BUF 65536
#define BUCKETS 2400
#define MAX_WINDOWS 4096

typedef struct { char *at; size_t size, count, *begin; } Lines;
typedef struct { uint64_t n[BUCKETS]; uint64_t count, status[6]; } Times;
typedef struct { int fd, busy, kind; size_t device, sent, out_size, in_size; double due; char *out, in[BUF]; } Conn;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) { perror(what); exit(2); }

static char *map(const char *path, size_t *size, int writable) {
  struct stat s;
  int fd = open(path, writable ? O_RDWR : O_RDONLY);
  if (fd < 0 || fstat(fd, &s)) die(path);
  *size = s.st_size;
  if (!s.st_size) return NULL;
  char *at = mmap(NULL, s.st_size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) die("mmap");
  close(fd);
  return at;
}

static Lines lines(const char *path) {
  Lines l = {0};
  l.at = map(path, &l.size, 0);
  for (size_t i = 0; i < l.size; i++) l.count += l.at[i] == '\n';
  l.begin = malloc((l.count + 1) * sizeof *l.begin);
  size_t n = 0, from = 0;
  for (size_t i = 0; i < l.size; i++)
    if (l.at[i] == '\n') { l.begin[n++] = from; from = i + 1; }
  l.begin[n] = from;
  return l;
}

/* 300 buckets for each factor of ten, from 1 us to 100 s. */
static int bucket(double s) {
  double us = s * 1e6;
  int b = 0;
  while (us >= 10 && b < BUCKETS - 300) { us /= 10; b += 300; }
  b += (int)((us - 1) * (300.0 / 9));
  return b < 0 ? 0 : b >= BUCKETS ? BUCKETS - 1 : b;
}

static double ms_of(int b) {
  double us = 1 + (b % 300 + 1) * (9.0 / 300);
  for (int d = b / 300; d > 0; d--) us *= 10;
  return us / 1000;
}

static double percentile(const Times *t, double p) {
  uint64_t want = (uint64_t)(t->count * p), seen = 0;
  if (!t->count) return 0;
  for (int b = 0; b < BUCKETS; b++) {
    seen += t->n[b];
    if (seen > want) return ms_of(b);
  }
  return ms_of(BUCKETS - 1);
}

static Times polls, check_ins, window;
static double window_p99[MAX_WINDOWS];
static uint64_t window_changed[MAX_WINDOWS];
static int windows;
static Lines tokens, bodies;
static char *etags;
static Conn *conns, **idle;
static int idles; /* the one that was idle last is used first */
static int port, epoll, live, broken, fresh;
static uint64_t unsent;

static void note(Times *t, double s, int status) {
  t->n[bucket(s)]++;
  t->count++;
  t->status[status == 304 ? 3 : status == 200 ? 2 : status >= 500 ? 5 : 4]++;
}

/* Once it is needed, as a device does: until then a connection that the server ended stays ended. */
static void dial(Conn *c) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->fd, (void *)&to, sizeof to)) die("connect");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e)) die("epoll");
}

static void hang_up(Conn *c) {
  close(c->fd);
  c->fd = -1;
}

static void push(Conn *c) {
  while (c->sent < c->out_size) {
    ssize_t n = send(c->fd, c->out + c->sent, c->out_size - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) { usleep(100); continue; }
    if (n < 0) { broken++; return; }
    c->sent += n;
  }
}

static void ask(Conn *c, int kind, size_t which, double due) {
  if (c->fd < 0) dial(c);
  c->busy = 1; c->kind = kind; c->device = which; c->due = due; c->sent = c->in_size = 0;
  live++;
  if (kind == 0) {
    size_t n = tokens.begin[which + 1] - tokens.begin[which] - 1;
    c->out_size = sprintf(c->out, "GET /device/v1/directive HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %.*s\r\n", (int)n, tokens.at + tokens.begin[which]);
    char *etag = etags + which * ETAG;
    if (*etag) c->out_size += sprintf(c->out + c->out_size, "If-None-Match: %s\r\n", etag);
    c->out_size += sprintf(c->out + c->out_size, "\r\n");
  } else {
    size_t n = bodies.begin[which + 1] - bodies.begin[which] - 1;
    c->out_size = sprintf(c->out, "POST /device/v1/check-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", n);
    memcpy(c->out + c->out_size, bodies.at + bodies.begin[which], n);
    c->out_size += n;
  }
  push(c);
}

static void rest(Conn *c) {
  c->busy = 0;
  live--;
  idle[idles++] = c;
}

/* Take what has come. */
static void take(Conn *c) {
  ssize_t n = recv(c->fd, c->in + c->in_size, BUF - 1 - c->in_size, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    /* a server may end a connection that was idle; what was sent into it is sent again */
    int again = c->busy && !c->in_size;
    broken += c->busy && c->in_size;
    hang_up(c);
    if (!again) { if (c->busy) rest(c); return; }
    dial(c);
    c->sent = 0;
    push(c);
    return;
  }
  c->in_size += n;
  c->in[c->in_size] = 0;
  char *end = strstr(c->in, "\r\n\r\n");
  if (!end) return;
  int status = atoi(c->in + 9);
  char *length = strcasestr(c->in, "content-length:");
  size_t body = status != 304 && length && length < end ? strtoul(length + 15, NULL, 10) : 0;
  if (c->in_size < (size_t)(end + 4 - c->in) + body) return;
  double took = now() - c->due;
  if (c->kind == 0) {
    char *etag = strstr(c->in, "etag: ");
    if (status == 200 && etag && etag < end) {
      size_t k = strcspn(etag + 6, "\r");
      if (k < ETAG) { memcpy(etags + c->device * ETAG, etag + 6, k); etags[c->device * ETAG + k] = 0; }
    }
    note(&polls, took, status);
    note(&window, took, status);
  } else {
    note(&check_ins, took, status);
  }
  rest(c);
  if (fresh) hang_up(c);
}

static void print(const char *name, const Times *t) {
  printf("\"%s\": {\"count\": %lu, \"not_modified\": %lu, \"ok\": %lu, \"refused\": %lu, \"failed\": %lu, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f}, ",
         name, t->count, t->status[3], t->status[2], t->status[4], t->status[5], percentile(t, .5), percentile(t, .9), percentile(t, .99), percentile(t, .999), percentile(t, 1 - 1e-12));
}

int main(int argc, char **argv) {
  if (argc != 10) { fprintf(stderr, "expected nine arguments\n"); return 2; }
  port = atoi(argv[1]);
  int many = abs(atoi(argv[2]));
  fresh = atoi(argv[2]) < 0;
  double seconds = atof(argv[3]), poll_rate = atof(argv[4]), check_rate = atof(argv[5]);
  size_t size, first = strtoul(argv[9], NULL, 10);
  tokens = lines(argv[6]);
  etags = map(argv[7], &size, 1);
  bodies = lines(argv[8]);
  if (size < tokens.count * ETAG) { fprintf(stderr, "ETAGS is too small\n"); return 2; }
  epoll = epoll_create1(0);
  conns = calloc(many, sizeof *conns);
  idle = malloc(many * sizeof *idle);
  for (int i = 0; i < many; i++) { conns[i].out = malloc(BUF + 4096); conns[i].fd = -1; idle[idles++] = &conns[i]; }
  size_t stride = 7919, place = 0, asked = 0, checked = first;
  while (tokens.count % stride == 0) stride += 2;
  int flood = poll_rate < 0, once = poll_rate == -2;
  double begun = now(), until = begun + seconds, next_poll = begun, next_check = begun, mark = begun;
  struct epoll_event found[256];
  for (;;) {
    double t = now();
    int over = t >= until || (once && asked == tokens.count);
    if (over && !live) break;
    if (t > until + 30) { unsent += live; break; }
    if (t - mark >= 1 && windows < MAX_WINDOWS) {
      window_p99[windows] = percentile(&window, .99);
      window_changed[windows++] = window.status[2];
      memset(&window, 0, sizeof window);
      mark = t;
    }
    while (!over && idles) {
      int poll_due = (flood && !(once && asked == tokens.count)) || (poll_rate > 0 && next_poll <= t);
      int check_due = check_rate > 0 && next_check <= t && checked < bodies.count;
      if (check_due && (!poll_due || flood || next_check <= next_poll)) {
        ask(idle[--idles], 1, checked++, next_check);
        next_check += 1 / check_rate;
      } else if (poll_due) {
        ask(idle[--idles], 0, place, flood ? t : next_poll);
        place = (place + stride) % tokens.count;
        asked++;
        next_poll += poll_rate > 0 ? 1 / poll_rate : 0;
      } else break;
    }
    double wait = until - t;
    if (poll_rate > 0 && next_poll - t < wait) wait = next_poll - t;
    if (check_rate > 0 && next_check - t < wait) wait = next_check - t;
    /* whole milliseconds: a few requests may leave together, and each counts from when it was due */
    int n = epoll_wait(epoll, found, 256, idles && !over ? (wait > 0 ? (int)(wait * 1000) + (wait < 0.001) : 0) : 50);
    for (int i = 0; i < n; i++) take(found[i].data.ptr);
  }
  if (poll_rate > 0 && next_poll < until) unsent += (until - next_poll) * poll_rate;
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
  printf("{");
  print("polls", &polls);
  print("check_ins", &check_ins);
  printf("\"seconds\": %.3f, \"cpu_s\": %.3f, \"broken\": %d, \"unsent\": %lu, \"next_check_in\": %zu, \"windows\": [", now() - begun, cpu, broken, unsent, checked);
  for (int i = 0; i < windows; i++) printf("%s[%.3f, %lu]", i ? ", " : "", window_p99[i], window_changed[i]);
  printf("]}\n");
  return 0;
}
