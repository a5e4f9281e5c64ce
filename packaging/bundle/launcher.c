/* bin/crio-credential-provider: the file that a kubelet runs.
 *
 * Static and without a libc (10 kB instead of 700, and nothing to set up), so that it needs no loader, no library and no
 * absolute path on the node. It finds its own tree, takes the variables out of the environment that would steer the
 * loader, libc, OpenSSL or Python, and runs lib/program through the tree's own loader. That one is named
 * crio-credential-provider as well: the kernel takes the journal's _COMM from the file that was executed last.
 * docs/decisions/0007-bundle.md has the figures behind this.
 */
#define NAME "crio-credential-provider"

enum { PATH_SIZE = 4096, AT_NULL = 0, AT_EXECFN = 31, STDERR = 2, AT_FDCWD = -100, FAULT = 1, ENOENT = 2 };

typedef unsigned long Word;

#if defined __x86_64__
enum { SYS_write = 1, SYS_execve = 59, SYS_exit = 60, SYS_readlinkat = 267 };

/* The kernel leaves argc, argv, the environment and the auxiliary vector on the stack. */
__asm__(".globl _start\n_start:\n  xor %ebp, %ebp\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call start\n");

static long call(long number, Word a, Word b, Word c, Word d)
{
    long result;
    register Word fourth __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined __aarch64__
enum { SYS_write = 64, SYS_execve = 221, SYS_exit = 93, SYS_readlinkat = 78 };

__asm__(".globl _start\n_start:\n  mov x29, #0\n  mov x30, #0\n  mov x0, sp\n  bl start\n");

static long call(long number, Word a, Word b, Word c, Word d)
{
    register long x8 __asm__("x8") = number;
    register Word x0 __asm__("x0") = a;
    register Word x1 __asm__("x1") = b;
    register Word x2 __asm__("x2") = c;
    register Word x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return (long)x0;
}
#else
#error "no launcher for this architecture: add its system calls here"
#endif

/* A program that runs as root takes these from nobody: beginnings of names, and whole names with their "=". They are
 * those that glibc drops for set-uid programs (sysdeps/generic/unsecvars.h), and OpenSSL's and Python's. */
static const char *const barred[] = {
    "LD_",      "PYTHON",  "GLIBC_",   "MALLOC_",      "OPENSSL_",     "SSL_CERT_",  "SSLKEYLOGFILE=", "GCONV_PATH=",
    "LOCPATH=", "NLSPATH=", "NIS_PATH=", "GETCONF_DIR=", "HOSTALIASES=", "LOCALDOMAIN=", "RES_OPTIONS=", "RESOLV_",
    "TZDIR=",   "CTLOG_FILE=", "QLOGDIR=",
};

static Word length(const char *text)
{
    Word n = 0;
    while (text[n])
        n++;
    return n;
}

static int begins(const char *text, const char *beginning)
{
    while (*beginning)
        if (*text++ != *beginning++)
            return 0;
    return 1;
}

static void say(const char *text)
{
    call(SYS_write, STDERR, (Word)text, length(text), 0);
}

__attribute__((noreturn)) static void fail(const char *what, long error)
{
    int error_is_missing = error == ENOENT;
    char digits[] = "000\n";
    for (int place = 2; place >= 0; place--, error /= 10)
        digits[place] = (char)('0' + error % 10);
    say(NAME ": cannot start: ");
    say(what);
    if (error_is_missing) {
        say(" is not there: move bin/ and lib/ together, or make a symlink to bin/" NAME "\n");
    } else {
        say(": error ");
        say(digits);
    }
    for (;;)
        call(SYS_exit, FAULT, 0, 0, 0);
}

static void clean(char **environment)
{
    char **kept = environment;
    for (; *environment; environment++) {
        int keep = 1;
        for (Word i = 0; i < sizeof barred / sizeof *barred; i++)
            if (begins(*environment, barred[i]))
                keep = 0;
        if (keep)
            *kept++ = *environment;
    }
    *kept = 0;
}

/* The directory above that of this file; the kernel has resolved symlinks. The length of its path. */
static Word find_tree(char *path)
{
    const char *link = "/proc/self/exe";
    long end = call(SYS_readlinkat, (Word)AT_FDCWD, (Word)link, (Word)path, PATH_SIZE);
    if (end < 0)
        fail(link, -end);
    for (int level = 0; level < 2; level++)
        do
            end--;
        while (end > 0 && path[end] != '/');
    if (end < 0 || end > PATH_SIZE - 64)
        fail("the path of the program is too long", 0);
    return (Word)end;
}

static void join(char *target, const char *tree, Word tree_length, const char *rest)
{
    for (Word i = 0; i < tree_length; i++)
        target[i] = tree[i];
    for (Word i = 0; i <= length(rest); i++)
        target[tree_length + i] = rest[i];
}

/* What was executed, as it was written: argv[0] may say anything. */
static const char *executed(char **environment)
{
    while (*environment++)
        ;
    for (Word *entry = (Word *)environment; entry[0] != AT_NULL; entry += 2)
        if (entry[0] == AT_EXECFN)
            return (const char *)entry[1];
    return NAME;
}

__attribute__((noreturn, used)) void start(Word *stack)
{
    static char tree[PATH_SIZE], loader[PATH_SIZE], program[PATH_SIZE];
    Word count = stack[0];
    char **arguments = (char **)(stack + 1), **environment = arguments + count + 1;
    Word size = find_tree(tree);
    join(loader, tree, size, "/lib/" NAME);
    join(program, tree, size, "/lib/program");
    const char *command[count + 6];
    Word n = 0;
    command[n++] = loader;
    /* Nothing of the node's /etc/ld.so.cache; the tree's libraries are found by lib/program's own DT_RPATH. */
    command[n++] = "--inhibit-cache";
    command[n++] = "--argv0";
    command[n++] = executed(environment);
    command[n++] = program;
    for (Word i = 1; i < count; i++)
        command[n++] = arguments[i];
    command[n] = 0;
    clean(environment);
    fail(loader, -call(SYS_execve, (Word)loader, (Word)command, (Word)environment, 0));
}
