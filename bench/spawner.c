/* Starts programs and tells what each run took; a process of its own, and a small one, since Linux hands the peak memory
 * of a process on through vfork and exec: what it uses counts for its children.
 *
 * A line on standard input is one order, its fields separated by tabs:
 *
 *     COUNT  STDIN...  STDOUT...  PROGRAM ARGUMENT...
 *
 * that is, COUNT processes of one command line at the same time, each with its own standard streams (paths of files). The
 * answer is a line: seconds of wall time until all have ended, seconds of CPU of all, peak memory of the largest in KiB,
 * and the exit statuses, negative for a signal, separated by blanks. The first line that it writes is its own peak memory,
 * below which it cannot tell. The environment is its own. */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum { FIELDS = 256 };
extern char **environ;

static double seconds(struct timeval time)
{
    return time.tv_sec + time.tv_usec / 1e6;
}

static void start(char *stdin_path, char *stdout_path, char **command)
{
    posix_spawn_file_actions_t streams;
    pid_t process;
    posix_spawn_file_actions_init(&streams);
    posix_spawn_file_actions_addopen(&streams, 0, stdin_path, O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&streams, 1, stdout_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&streams, 2, "/dev/null", O_WRONLY, 0);
    if (posix_spawn(&process, command[0], &streams, NULL, command, environ) != 0) {
        perror(command[0]);
        exit(1);
    }
    posix_spawn_file_actions_destroy(&streams);
}

static void run(int count, char **fields)
{
    struct timespec begin, end;
    double cpu = 0;
    long peak = 0;
    int statuses[FIELDS];
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < count; i++)
        start(fields[i], fields[count + i], fields + 2 * count);
    for (int i = 0; i < count; i++) {
        struct rusage usage;
        int status;
        wait4(-1, &status, 0, &usage);
        cpu += seconds(usage.ru_utime) + seconds(usage.ru_stime);
        peak = usage.ru_maxrss > peak ? usage.ru_maxrss : peak;
        statuses[i] = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.9f %.6f %ld", end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9, cpu, peak);
    for (int i = 0; i < count; i++)
        printf(" %d", statuses[i]);
    puts("");
}

static long own_peak(void)
{
    char line[256];
    long peak = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        sscanf(line, "VmHWM: %ld", &peak);
    return peak;
}

int main(void)
{
    static char line[1 << 16];
    printf("%ld\n", own_peak());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char *fields[FIELDS] = {NULL};
        int count = 0;
        for (char *field = strtok(line, "\t\n"); field && count < FIELDS - 1; field = strtok(NULL, "\t\n"))
            fields[count++] = field;
        run(atoi(fields[0]), fields + 1);
        fflush(stdout);
    }
    return 0;
}
