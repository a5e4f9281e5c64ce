/* bin/crio-credential-provider: the file that a kubelet runs.
 *
 * Static, so that it needs no loader, no libc and no absolute path on the node. It finds its own tree, takes the
 * variables out of the environment that would steer the loader, libc, OpenSSL or Python, and runs lib/program through
 * the tree's own loader, which is named crio-credential-provider as well: the kernel takes the journal's _COMM from
 * the file that was executed last. docs/decisions/0007-bundle.md has the figures behind this.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define NAME "crio-credential-provider"

extern char **environ;

/* A program that runs as root takes these from nobody: beginnings of names, then whole names. The latter are those
 * that glibc drops for set-uid programs (sysdeps/generic/unsecvars.h) and that have no common beginning. */
static const char *const barred_beginnings[] = {"LD_", "PYTHON", "GLIBC_", "MALLOC_", "OPENSSL_", "SSL_", "RES"};
static const char *const barred[] = {
    "GCONV_PATH", "GETCONF_DIR", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "NIS_PATH",
    "NLSPATH",    "SSLKEYLOGFILE", "TZDIR", "QLOGDIR", "CTLOG_FILE",
};

static int is_barred(const char *variable)
{
    for (size_t i = 0; i < sizeof barred_beginnings / sizeof *barred_beginnings; i++)
        if (strncmp(variable, barred_beginnings[i], strlen(barred_beginnings[i])) == 0)
            return 1;
    for (size_t i = 0; i < sizeof barred / sizeof *barred; i++) {
        size_t length = strlen(barred[i]);
        if (strncmp(variable, barred[i], length) == 0 && variable[length] == '=')
            return 1;
    }
    return 0;
}

static void clean_environment(void)
{
    char **kept = environ;
    for (char **variable = environ; *variable; variable++)
        if (!is_barred(*variable))
            *kept++ = *variable;
    *kept = NULL;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, NAME ": cannot start: %s: %s\n", what, why);
    exit(1);
}

/* The directory above that of this file, symlinks resolved. */
static void find_tree(const char *started, char tree[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", tree, PATH_MAX - 1);
    if (length > 0)
        tree[length] = 0;
    else if (!realpath(started, tree)) /* no /proc */
        fail(started, strerror(errno));
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(tree, '/');
        if (!slash)
            fail(tree, "no absolute path");
        *slash = 0;
    }
}

int main(int argc, char **argv)
{
    /* As it was executed: argv[0] may say anything. */
    const char *started = (const char *)getauxval(AT_EXECFN);
    if (!started)
        started = argc ? argv[0] : NAME;
    char tree[PATH_MAX], loader[PATH_MAX + 64], program[PATH_MAX + 64];
    find_tree(started, tree);
    snprintf(loader, sizeof loader, "%s/lib/" NAME, tree);
    snprintf(program, sizeof program, "%s/lib/program", tree);

    const char **command = calloc((size_t)argc + 8, sizeof *command);
    if (!command)
        fail(started, strerror(errno));
    int n = 0;
    command[n++] = loader;
    /* Nothing of the node's /etc/ld.so.cache; the tree's libraries are found by lib/program's own DT_RPATH. */
    command[n++] = "--inhibit-cache";
    command[n++] = "--argv0";
    command[n++] = started;
    command[n++] = program;
    for (int i = 1; i < argc; i++)
        command[n++] = argv[i];
    clean_environment();
    execv(loader, (char *const *)command);
    fail(loader, strerror(errno));
}
