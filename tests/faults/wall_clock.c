/* A wall clock that a test can set, for one process: LD_PRELOAD. All other clocks are left alone.

   WALL_CLOCK_FILE holds a number of seconds to add, read at each call, and after it, if the clock
   is to step back at each call, by how many nanoseconds. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_llong calls;

static long long ahead_ns(void) {
    char text[64] = {0};
    long long seconds = 0, step = 0;
    const char *path = getenv("WALL_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0)
            sscanf(text, "%lld %lld", &seconds, &step);
        close(file);
    }
    return seconds * 1000000000LL - (step ? step * ++calls : 0);
}

static int wall(struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (real(CLOCK_REALTIME, now))
        return -1;
    long long ns = now->tv_sec * 1000000000LL + now->tv_nsec + ahead_ns();
    if (ns < 0)
        ns = 0;
    now->tv_sec = ns / 1000000000LL;
    now->tv_nsec = ns % 1000000000LL;
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (clock == CLOCK_REALTIME)
        return wall(now);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, now);
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (wall(&precise))
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    if (wall(&now))
        return -1;
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
