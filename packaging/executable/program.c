/* CPython with the program loaded.
 *
 * The build runs this once with the name of a script (load.py) and of a file: Python starts, the script imports the
 * program, and all memory of both goes to the file. The build puts that in the place of the section that it comes from
 * (snapshot.ld), so that what is shipped begins where that run ended: nothing is left to do for a pull but to bring up
 * to date what belongs to a process. docs/decisions/0011-executable.md.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE
#include <Python.h>

#include <errno.h>
#include <frozen_modules/importlib._bootstrap.h>
#include <frozen_modules/importlib._bootstrap_external.h>
#include <frozen_modules/zipimport.h>
#include <internal/pycore_import.h>
#include <internal/pycore_object.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_runtime.h>
#include <netdb.h>
#include <nss.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* -- memory: what is taken while the program is loaded lies in the snapshot, what is taken later does not ------------- */

enum { UNIT = 16, PAGE = 4096 };
extern char snapshot_start[], heap[], heap_end[]; /* snapshot.ld */
static char *heap_free = heap;
static int is_loading, is_loaded; /* before the first libc starts, whose memory is not the program's */

/* A header; what it stands for begins behind it. */
struct block {
    size_t size;
    struct block *next;
};

/* Blocks that were released, by address. */
static struct block *released;

static int in_snapshot(const void *memory)
{
    return (const char *)memory >= heap && (const char *)memory < heap_free;
}

static struct block *block_of(void *memory)
{
    return (struct block *)memory - 1;
}

static char *end_of(struct block *block)
{
    return (char *)(block + 1) + block->size;
}

static void *fresh(size_t size, size_t alignment)
{
    char *place = (char *)(((uintptr_t)heap_free + sizeof(struct block) + alignment - 1) & -alignment);
    if (size > (size_t)(heap_end - place))
        Py_FatalError("the heap of the snapshot is too small");
    block_of(place)->size = size;
    heap_free = place + size;
    return place;
}

/* Makes one of a block and the next in the list, where that begins at its end. */
static void join(struct block *block)
{
    struct block *next = block->next;
    if ((char *)next != end_of(block))
        return;
    block->size += sizeof *next + next->size;
    block->next = next->next;
    memset(next, 0, sizeof *next);
}

/* Puts a block into the list, one with its neighbours; zeroed, for the same bytes at each build. */
static void give_back(struct block *block)
{
    struct block *before = NULL, *after = released;
    for (; after && after < block; after = after->next)
        before = after;
    memset(block + 1, 0, block->size);
    block->next = after;
    if (before)
        before->next = block;
    else
        released = block;
    join(block);
    if (before)
        join(before);
}

/* The first released block that is large enough, of which the rest is given back; else a fresh one. */
static void *take(size_t size)
{
    size = size ? (size + UNIT - 1) & -UNIT : UNIT;
    for (struct block **place = &released; *place; place = &(*place)->next) {
        struct block *block = *place;
        if (block->size < size)
            continue;
        *place = block->next;
        block->next = NULL;
        if (block->size >= size + 2 * UNIT) {
            struct block *rest = (struct block *)((char *)(block + 1) + size);
            rest->size = block->size - size - sizeof *rest;
            block->size = size;
            give_back(rest);
        }
        return block + 1;
    }
    return fresh(size, UNIT);
}

/* In place of libc's everywhere, libc included (the linker's --wrap), which are called __real_... then. */
void *__real_malloc(size_t size), *__real_calloc(size_t count, size_t size), *__real_realloc(void *block, size_t size);
void __real_free(void *block);

void *__wrap_malloc(size_t size)
{
    return is_loading ? take(size) : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return is_loading ? take(count * size) : __real_calloc(count, size);
}

void __wrap_free(void *block)
{
    if (!in_snapshot(block))
        __real_free(block);
    else if (is_loading)
        give_back(block_of(block));
}

void *__wrap_realloc(void *block, size_t size)
{
    if (!in_snapshot(block))
        return block ? __real_realloc(block, size) : __wrap_malloc(size);
    void *copy = __wrap_malloc(size);
    if (copy) {
        size_t old = block_of(block)->size;
        memcpy(copy, block, old < size ? old : size);
        __wrap_free(block);
    }
    return copy;
}

int __real_posix_memalign(void **memory, size_t alignment, size_t size);

int __wrap_posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (!is_loading)
        return __real_posix_memalign(memory, alignment, size);
    *memory = fresh(size, alignment);
    return 0;
}

static void *allocate_arena(void *context, size_t size)
{
    if (is_loading)
        return fresh(size, PAGE);
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

static void free_arena(void *context, void *arena, size_t size)
{
    if (!in_snapshot(arena))
        munmap(arena, size);
}

/* -- randomness: the kernel's, at each call. A generator with a state would be the same in every process. ------------- */

static int random_bytes(unsigned char *target, int size)
{
    if (!is_loaded) { /* the same bytes at each build; nothing of what is made with them is used */
        static uint64_t state; /* Knuth's MMIX */
        for (int i = 0; i < size; i++)
            target[i] = (state = state * 6364136223846793005 + 1442695040888963407) >> 56;
        return 1;
    }
    while (size > 0) {
        ssize_t got = getrandom(target, size, 0);
        if (got < 0 && errno != EINTR)
            return 0;
        target += got > 0 ? got : 0;
        size -= got > 0 ? got : 0;
    }
    return 1;
}

static int random_status(void)
{
    return 1;
}

static const RAND_METHOD kernel_random = {NULL, random_bytes, NULL, NULL, random_bytes, random_status};

#ifdef __x86_64__
/* By their own names, which keeps 0.7 MB of OpenSSL out: AES-GCM by AVX-512, for servers that encrypt gigabits. */
int ossl_vaes_vpclmulqdq_capable(void)
{
    return 0;
}
#define NOT_CALLED(name) void name(void) { abort(); }
NOT_CALLED(ossl_aes_gcm_init_avx512)
NOT_CALLED(ossl_aes_gcm_setiv_avx512)
NOT_CALLED(ossl_aes_gcm_update_aad_avx512)
NOT_CALLED(ossl_aes_gcm_encrypt_avx512)
NOT_CALLED(ossl_aes_gcm_decrypt_avx512)
NOT_CALLED(ossl_aes_gcm_finalize_avx512)
NOT_CALLED(ossl_gcm_gmult_avx512)
#endif

/* -- loading, in the build ------------------------------------------------------------------------------------------ */

/* Of the modules that Python has frozen those that it imports with. By their own names, which keeps the others out of
 * its static library: they are in the archive, as all the rest. */
static const struct _frozen bootstrap[] = {
    {"_frozen_importlib", _Py_M__importlib__bootstrap, sizeof _Py_M__importlib__bootstrap},
    {"_frozen_importlib_external", _Py_M__importlib__bootstrap_external, sizeof _Py_M__importlib__bootstrap_external},
    {"zipimport", _Py_M__zipimport, sizeof _Py_M__zipimport},
    {NULL},
};
static const struct _frozen no_modules[1];
static const struct _module_alias no_aliases[1];
const struct _frozen *PyImport_FrozenModules = no_modules, *_PyImport_FrozenBootstrap = bootstrap;
const struct _frozen *_PyImport_FrozenStdlib = no_modules, *_PyImport_FrozenTest = no_modules;
const struct _module_alias *_PyImport_FrozenAliases = no_aliases;

static PyObject *entry;
static unsigned thread_keys;

static PyStatus start_python(void)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status))
        return status;
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.install_signal_handlers = 1;
    config.use_hash_seed = 1; /* the tables of the snapshot are made with it: 0011, point 6 */
    config.hash_seed = 0;
    config.module_search_paths_set = 1;
    PyWideStringList_Append(&config.module_search_paths, L"/proc/self/exe");
    /* Nothing of the build machine. */
    wchar_t **paths[] = {&config.program_name, &config.executable,  &config.base_executable, &config.prefix,
                         &config.base_prefix,  &config.exec_prefix, &config.base_exec_prefix};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(paths); i++)
        PyConfig_SetString(&config, paths[i], L"");
    status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return status;
}

/* Objects of the snapshot are never freed (PEP 683): to count references to them would write to nearly every page of it,
 * of which each process would then have to make a copy. */
static PyObject **pending;
static size_t pending_count;

static int keep(PyObject *object, void *unused)
{
    if (object && !_Py_IsImmortal(object)) {
        _Py_SetImmortalUntracked(object);
        pending[pending_count++] = object;
    }
    return 0;
}

static int keep_referents(PyObject *object, void *unused)
{
    keep(object, NULL);
    while (pending_count) {
        object = pending[--pending_count];
        keep((PyObject *)Py_TYPE(object), NULL);
        if (PyCode_Check(object)) { /* of which the garbage collector knows nothing */
            PyCodeObject *code = (PyCodeObject *)object;
            PyObject *parts[] = {code->co_consts, code->co_names, code->co_exceptiontable, code->co_localsplusnames,
                                 code->co_localspluskinds, code->co_filename, code->co_name, code->co_qualname,
                                 code->co_linetable};
            for (size_t i = 0; i < Py_ARRAY_LENGTH(parts); i++)
                keep(parts[i], NULL);
        } else if (Py_TYPE(object)->tp_traverse)
            Py_TYPE(object)->tp_traverse(object, keep, NULL);
    }
    return 1;
}

static int keep_all(void)
{
    size_t size = 1 << 26;
    pending = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pending == MAP_FAILED)
        return -1;
    PyUnstable_GC_VisitObjects(keep_referents, NULL);
    pending = NULL;
    return 0;
}

static __attribute__((noinline)) int load(const char *script, const char *target)
{
    is_loading = 1;
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){NULL, allocate_arena, free_arena});
    RAND_set_rand_method(&kernel_random);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_ATEXIT, NULL);
    PyStatus status = start_python();
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    FILE *file = fopen(script, "r");
    PyObject *names = PyDict_New();
    PyObject *done = NULL;
    if (file && names && PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0)
        done = PyRun_FileEx(file, script, Py_file_input, names, names, 1);
    entry = done ? PyDict_GetItemString(names, "start") : NULL;
    if (!entry) {
        PyErr_Print();
        return 1;
    }
    Py_INCREF(entry);
    pthread_key_t key;
    if (keep_all() < 0 || pthread_key_create(&key, NULL))
        return 1;
    thread_keys = key;
    PyOS_BeforeFork();
    PyThreadState *thread = PyThreadState_Get();
    thread->native_thread_id = 0;
    memset(thread->datastack_top, 0, (char *)thread->datastack_limit - (char *)thread->datastack_top);
    is_loading = 0;
    is_loaded = 1;
    FILE *out = fopen(target, "w");
    size_t size = heap_free - snapshot_start;
    return !out || fwrite(snapshot_start, 1, size, out) != size || fclose(out);
}

/* -- a process ------------------------------------------------------------------------------------------------------ */

/* In place of OpenSSL's (--wrap). Where distributions keep the system's CAs, as Go's crypto/x509 looks for them; libcrypto
 * knows its own one's alone. Only a plugin that was told no CA of the cluster asks. No variable names another file. */
const char *__wrap_X509_get_default_cert_file(void)
{
    static const char *const files[] = {
        "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Ubuntu, Arch */
        "/etc/pki/tls/certs/ca-bundle.crt",                  /* Fedora, RHEL 6 */
        "/etc/ssl/ca-bundle.pem",                            /* openSUSE */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* RHEL 7 and newer */
        "/etc/ssl/cert.pem",                                 /* Alpine */
    };
    size_t i = 0;
    while (i < Py_ARRAY_LENGTH(files) - 1 && access(files[i], R_OK) != 0)
        i++;
    return files[i];
}

const char *__wrap_X509_get_default_cert_file_env(void)
{
    return "";
}

const char *__wrap_X509_get_default_cert_dir_env(void)
{
    return "";
}

static int set_arguments(int argc, char **argv)
{
    PyObject *arguments = PyList_New(argc);
    for (int i = 0; i < argc && arguments; i++) {
        PyObject *argument = PyUnicode_DecodeFSDefault(argv[i]);
        if (!argument)
            return -1;
        PyList_SET_ITEM(arguments, i, argument);
    }
    return arguments && PySys_SetObject("argv", arguments) == 0 ? 0 : -1;
}

static int set_environment(void)
{
    PyObject *posix = PyImport_ImportModule("posix");
    PyObject *variables = posix ? PyObject_GetAttrString(posix, "environ") : NULL;
    for (char **line = environ; variables && *line; line++) {
        const char *end = strchr(*line, '=');
        PyObject *name = end ? PyBytes_FromStringAndSize(*line, end - *line) : NULL;
        PyObject *value = end ? PyBytes_FromString(end + 1) : NULL;
        if (end && (!name || !value || !PyDict_SetDefault(variables, name, value)))
            return -1;
    }
    return variables ? 0 : -1;
}

/* The kernel keeps what was ignored when the process began; Python's table is the build's. */
static int set_signals(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    static const int ending[] = {SIGHUP, SIGINT, SIGTERM};
    PyObject *module = PyImport_ImportModule("_signal");
    for (size_t i = 0; module && i < Py_ARRAY_LENGTH(ending); i++)
        if (PyOS_getsig(ending[i]) == SIG_IGN && !PyObject_CallMethod(module, "signal", "ii", ending[i], 1))
            return -1;
    return module ? 0 : -1;
}

/* No plugin of the node's libc: another version than ours. As Go's own resolver does. Reads nsswitch.conf, so that a pull
 * does it only for a name that it has to look up. */
static void configure_libc(void)
{
    static const char *const sources[][2] = {
        {"hosts", "files dns"}, {"passwd", "files"}, {"group", "files"}, {"services", "files"}};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(sources); i++)
        __nss_configure_lookup(sources[i][0], sources[i][1]);
}

int __real_getaddrinfo(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    if (!hints || !(hints->ai_flags & AI_NUMERICHOST))
        configure_libc();
    return __real_getaddrinfo(host, service, hints, found);
}

int __real_getpwuid_r(uid_t, struct passwd *, char *, size_t, struct passwd **);

int __wrap_getpwuid_r(uid_t user, struct passwd *entry, char *space, size_t size, struct passwd **found)
{
    configure_libc();
    return __real_getpwuid_r(user, entry, space, size, found);
}

static int run(int argc, char **argv)
{
    for (unsigned i = 0; i < thread_keys; i++)
        pthread_key_create(&(pthread_key_t){0}, NULL);
    PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
    _Py_tss_tstate = thread;
    PyThread_tss_set(&_PyRuntime.autoTSSkey, thread);
    thread->thread_id = PyThread_get_thread_ident();
    PyOS_AfterFork_Child();
    if (argc > 1 && *argv[1] != '-')
        configure_libc(); /* a command may ask for users */
    if (set_signals() == 0 && set_arguments(argc, argv) == 0 && set_environment() == 0)
        PyObject_CallFunction(entry, "O&", PyUnicode_DecodeFSDefault, (const char *)getauxval(AT_EXECFN));
    PyErr_Print(); /* the program ends the process */
    return 1;
}

int main(int argc, char **argv)
{
    if (is_loaded)
        return run(argc, argv);
    /* Its addresses are left in memory, and depend on what the kernel put above it: the length of the file's name. */
    void *aside = __builtin_alloca((uintptr_t)__builtin_frame_address(0) & 0xffff);
    __asm__ volatile("" : : "r"(aside) : "memory");
    return argc == 3 ? load(argv[1], argv[2]) : 2;
}
