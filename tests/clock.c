/* Sets the clock of the processes that load it, and nothing else: date and time are CLOCK_AHEAD seconds ahead.

   libfaketime does that and more: under it Python's sleeps fail or its waits never end, whether or not it leaves the
   monotonic clock alone (0.9.10; clock_nanosleep and sem_clockwait), and times of files move too. */

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t ahead;

__attribute__((constructor)) static void set(void)
{
    const char *seconds = getenv("CLOCK_AHEAD");
    ahead = seconds ? atoll(seconds) : 0;
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, which, now);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int failed = (int)syscall(SYS_gettimeofday, now, zone);
    if (!failed)
        now->tv_sec += ahead;
    return failed;
}

time_t time(time_t *also)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (also)
        *also = now.tv_sec;
    return now.tv_sec;
}
