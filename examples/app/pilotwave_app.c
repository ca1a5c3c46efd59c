/* An application in C that takes part in Pilotwave: it follows the current version of a model, tells
 * the agent whether it took it, gives signs of life, reports what its calls took, tries a version that
 * is in shadow beside the one that serves, and labels answers where the device may learn.
 *
 *     cc -std=c11 -O2 -Wall -Wextra -o pilotwave_app pilotwave_app.c
 *     ./pilotwave_app /var/lib/pilotwave detector [most bytes that it has room for]
 *
 * It prints a line for each version that it takes or refuses, and ends well on SIGTERM. "Loading" a
 * model means reading its file here: put your runtime into load() and call().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HEARTBEAT_S = 2, PATH_LIMIT = 4096, NAME_LIMIT = 256 };

static const char *data_dir, *model;
static long most_bytes = 1L << 30;
static volatile sig_atomic_t stopping;

static char serving[NAME_LIMIT]; /* the folder of the version that is loaded */
static char version[NAME_LIMIT]; /* and what its publisher calls it */
static unsigned char *loaded;    /* the model itself */
static long loaded_size;
static char refused[NAME_LIMIT], why[128];
static double refused_at;

static void on_signal(int number) { (void)number; stopping = 1; }

static double uptime(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* 1. Which version is current, or in shadow: the name of the folder that the link points to. */
static int named_by(const char *which, char *name) {
    char link[PATH_LIMIT], target[PATH_LIMIT];
    snprintf(link, sizeof link, "%s/models/%s/%s", data_dir, model, which);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0) return 0; /* none yet */
    target[length] = 0;
    char *slash = strrchr(target, '/');
    snprintf(name, NAME_LIMIT, "%.255s", slash ? slash + 1 : target);
    return 1;
}

static int read_text(const char *path, char *text, size_t room) {
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    text[fread(text, 1, room - 1, file)] = 0;
    fclose(file);
    return 1;
}

/* What the agent says about a version: a text of models/<model>/about/<folder>.json. */
static int about(const char *name, const char *key, char *value) {
    char path[PATH_LIMIT], text[8192], wanted[64];
    snprintf(path, sizeof path, "%s/models/%s/about/%s.json", data_dir, model, name);
    if (!read_text(path, text, sizeof text)) return 0;
    snprintf(wanted, sizeof wanted, "\"%s\": \"", key);
    char *from = strstr(text, wanted), *to = from ? strchr(from + strlen(wanted), '"') : NULL;
    if (!to) return 0;
    *to = 0;
    snprintf(value, NAME_LIMIT, "%.255s", from + strlen(wanted));
    return 1;
}

/* 2. Load a version beside the one that serves. Returns the reason if it cannot be. */
static const char *load(const char *name, unsigned char **bytes, long *size) {
    char path[PATH_LIMIT], entrypoint[NAME_LIMIT];
    if (!about(name, "entrypoint", entrypoint)) return "nothing is said about it";
    snprintf(path, sizeof path, "%s/models/%s/versions/%s/%s", data_dir, model, name, entrypoint);
    FILE *file = fopen(path, "rb");
    if (!file) return strerror(errno);
    struct stat found;
    if (fstat(fileno(file), &found) || found.st_size == 0) { fclose(file); return "it is empty"; }
    if (found.st_size > most_bytes) { fclose(file); return "it is larger than the memory here"; }
    unsigned char *read = malloc(found.st_size);
    if (!read) { fclose(file); return "out of memory"; }
    long count = fread(read, 1, found.st_size, file);
    fclose(file);
    if (count != found.st_size) { free(read); return "it cannot be read"; }
    *bytes = read;
    *size = count;
    return NULL;
}

/* 3. Send a message to the agent. One that does not run is no reason to stop serving. */
static void send_to_agent(const char *words) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (snprintf(to.sun_path, sizeof to.sun_path, "%s/live/agent.sock", data_dir) >=
        (int)sizeof to.sun_path)
        return; /* a socket's path has 107 bytes at most: use a shorter data folder, or files */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    (void)sendto(fd, words, strlen(words), 0, (struct sockaddr *)&to, sizeof to);
    close(fd);
}

/* 4. Say how this process is: by a file of its own, replaced at one stroke. That works whether the
 *    agent runs or not; the same words in a datagram, with "id" and "model", do as well. */
static void tell(const char *state) {
    char path[PATH_LIMIT], temp[PATH_LIMIT], ours[NAME_LIMIT + 4] = "null", no[1024] = "null";
    char name[NAME_LIMIT], tries[NAME_LIMIT + 40] = "null";
    if (serving[0]) snprintf(ours, sizeof ours, "\"%s\"", serving);
    if (refused[0])
        snprintf(no, sizeof no, "{\"name\": \"%s\", \"at\": %.2f, \"sentence\": \"%s\"}", refused,
                 refused_at, why);
    if (serving[0] && named_by("shadow", name))
        snprintf(tries, sizeof tries, "{\"name\": \"%s\", \"sentence\": \"\"}", name);
    snprintf(path, sizeof path, "%s/live/%s/c-app-%d.json", data_dir, model, (int)getpid());
    snprintf(temp, sizeof temp, "%s/live/%s/.c-app-%d.new", data_dir, model, (int)getpid());
    unlink(temp); /* others may write in this folder: "x" makes the file or fails, follows no link */
    FILE *file = fopen(temp, "wx");
    if (!file) return; /* a full disk, or no right to write: serve on, try again later */
    fprintf(file,
            "{\"schema\": \"pilotwave/app/1\", \"app\": \"c-app\", \"state\": \"%s\", "
            "\"serving\": %s, \"refused\": %s, \"shadow\": %s, \"beat\": %.2f, \"heartbeat_s\": %d}\n",
            state, ours, no, tries, uptime(), HEARTBEAT_S);
    if (fclose(file) || rename(temp, path)) unlink(temp);
}

/* 5. Follow the link: load beside, swap between two calls, free the old one. A version that was
 *    refused is tried again when the link has been set `anew`. */
static void follow(int anew) {
    char name[NAME_LIMIT];
    if (!named_by("current", name) || !strcmp(name, serving) || (!anew && !strcmp(name, refused))) return;
    unsigned char *bytes = NULL;
    long size = 0;
    const char *reason = load(name, &bytes, &size);
    if (reason) {
        snprintf(refused, sizeof refused, "%s", name);
        snprintf(why, sizeof why, "%s", reason);
        refused_at = uptime();
        printf("refused %s: %s\n", name, why);
    } else {
        free(loaded);
        loaded = bytes;
        loaded_size = size;
        snprintf(serving, sizeof serving, "%s", name);
        if (!about(name, "version", version)) version[0] = 0;
        printf("serving %s\n", name);
    }
    fflush(stdout);
}

/* 6. A call: what it took goes to the agent, in one datagram for many calls. */
static double call(const unsigned char *bytes, long size, unsigned *answer) {
    double begun = uptime();
    unsigned sum = 0;
    for (long at = 0; at < size; at++) sum += bytes[at];
    *(volatile unsigned *)answer = sum;
    return (uptime() - begun) * 1000;
}

static void report(void) {
    char words[512];
    unsigned answer;
    if (!version[0]) return;
    snprintf(words, sizeof words,
             "{\"schema\": \"pilotwave/sample/1\", \"model\": \"%s\", \"version\": \"%s\", "
             "\"numbers\": {\"latency_ms\": [%.4f, %.4f], \"error\": [0, 0], \"score\": 0.9}}",
             model, version, call(loaded, loaded_size, &answer), call(loaded, loaded_size, &answer));
    send_to_agent(words);
}

/* 7. A version in shadow: now and then, after an answer went out, call it and the one that serves with
 *    the same input, in a process of its own. What it does there (crash, hang) is a number here. Only
 *    figures of the pair go to the agent, for the version that is tried. */
struct pair { double disagree, ratio; };

static double share_of_shadow(void) {
    char path[PATH_LIMIT], text[4096];
    snprintf(path, sizeof path, "%s/live/%s/shadow.json", data_dir, model);
    char *at = read_text(path, text, sizeof text) ? strstr(text, "\"share\": ") : NULL;
    return at ? strtod(at + strlen("\"share\": "), NULL) : 0;
}

static void compare_in_child(const char *name, int out) {
    unsigned char *bytes = NULL;
    long size = 0;
    unsigned ours, theirs;
    errno = 0;
    if (nice(19) == -1 && errno) _exit(1);
    if (load(name, &bytes, &size)) _exit(1);
    call(bytes, size, &theirs); /* the first call of each pays for what later ones find ready */
    call(loaded, loaded_size, &ours);
    double serving_ms = call(loaded, loaded_size, &ours), candidate_ms = call(bytes, size, &theirs);
    struct pair found = {ours != theirs, serving_ms > 0 ? candidate_ms / serving_ms : 1};
    _exit(write(out, &found, sizeof found) != sizeof found);
}

static void try_in_shadow(void) {
    char name[NAME_LIMIT], candidate[NAME_LIMIT], words[512];
    if (!loaded || !named_by("shadow", name) || !about(name, "version", candidate)) return;
    if (drand48() >= share_of_shadow()) return;
    int ends[2], taken = 0;
    struct pair found;
    if (pipe(ends)) return;
    pid_t child = fork();
    if (child == 0) compare_in_child(name, ends[1]);
    close(ends[1]);
    struct pollfd on = {.fd = ends[0], .events = POLLIN};
    if (child > 0 && poll(&on, 1, 1000) == 1)
        taken = read(ends[0], &found, sizeof found) == sizeof found;
    close(ends[0]);
    if (child < 0) return;
    kill(child, SIGKILL); /* if it hangs */
    waitpid(child, NULL, 0);
    int length = snprintf(words, sizeof words,
                          "{\"schema\": \"pilotwave/sample/1\", \"model\": \"%s\", \"version\": \"%s\", "
                          "\"numbers\": {\"shadow_error\": %d",
                          model, candidate, !taken);
    if (taken)
        length += snprintf(words + length, sizeof words - length,
                           ", \"shadow_disagree\": %.0f, \"shadow_latency_ratio\": %.4f",
                           found.disagree, found.ratio);
    snprintf(words + length, sizeof words - length, "}}");
    send_to_agent(words);
}

/* 8. Label an answer: somebody said what the right class of an input was. The input goes to the agent
 *    as it was given to the model, for training plans, and the agent says whether it is kept. Without
 *    [learn] in the agent's settings there is no such socket. */
static int connected_to(const char *name) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (snprintf(to.sun_path, sizeof to.sun_path, "%s/live/%s", data_dir, name) >=
        (int)sizeof to.sun_path)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 10};
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!connect(fd, (struct sockaddr *)&to, sizeof to)) return fd;
    close(fd);
    return -1;
}

static int send_all(int fd, const void *bytes, size_t size) {
    for (const char *at = bytes; size;) {
        ssize_t done = send(fd, at, size, MSG_NOSIGNAL);
        if (done <= 0) return 0;
        at += done;
        size -= done;
    }
    return 1;
}

static void label(int class, const char *source, const float *x, int count) {
    char line[512], answer[1024];
    int fd = connected_to("label.sock");
    if (fd < 0) return;
    int length = snprintf(line, sizeof line,
                          "{\"schema\": \"pilotwave/label/1\", \"model\": \"%s\", \"label\": %d, "
                          "\"source\": \"%s\", \"inputs\": [{\"name\": \"x\", \"dtype\": "
                          "\"float32\", \"shape\": [1, %d]}]}\n",
                          model, class, source, count);
    /* a "no" may come before all is sent: read it whether sending went well or not */
    (void)(send_all(fd, line, length) && send_all(fd, x, count * sizeof *x));
    ssize_t got = recv(fd, answer, sizeof answer - 1, MSG_WAITALL);
    close(fd);
    if (got <= 0) return; /* the agent went away: label it again if it matters */
    answer[got] = 0;
    printf("labelled: %s", answer);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "expected a data folder and a model: %s /var/lib/pilotwave detector\n", *argv);
        return 2;
    }
    data_dir = argv[1];
    model = argv[2];
    if (argc > 3) most_bytes = atol(argv[3]);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    char folder[PATH_LIMIT];
    snprintf(folder, sizeof folder, "%s/models/%s", data_dir, model);
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), watched = -1, anew = 1;
    while (!stopping) {
        if (watched < 0) watched = inotify_add_watch(watch, folder, IN_MOVED_TO);
        follow(anew);
        tell(serving[0] ? "serving" : "waiting");
        report();
        try_in_shadow();
        if (loaded) label(2, "operator", (float[]){0.5f, 1.5f, -2, 3}, 4);
        struct pollfd on = {.fd = watch, .events = POLLIN};
        poll(&on, 1, HEARTBEAT_S * 1000 / (watched < 0 ? 4 : 1));
        _Alignas(struct inotify_event) char events[4096];
        ssize_t count;
        anew = 0;
        while ((count = read(watch, events, sizeof events)) > 0)
            for (char *at = events; at < events + count;) {
                struct inotify_event *event = (struct inotify_event *)at;
                if (event->len && !strcmp(event->name, "current")) anew = 1;
                at += sizeof *event + event->len;
            }
    }
    tell("stopped");
    free(loaded);
    return 0;
}
