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
#include <fcntl.h>
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

enum { UNIT = 16, PAGE = 4096, LARGEST = 1 << 28 };
enum { RUNS = 3, PLACES = 2 * RUNS + 1, OUTSIDE = PLACES }; /* those that touched.py watches; what is written to apart */
extern char snapshot_start[], heap[], heap_end[]; /* snapshot.ld */
static char *heap_free = heap;
static int is_loading, is_loaded; /* before the first libc starts, whose memory is not the program's */

/* The build loads the program twice. The first run puts one block behind the other, and tells each that is taken or given
 * back. The second is told a place for each, by its number (tools/touched.py): what a pull touches lies side by side, in
 * the order of how often it does, for it would lie all over the snapshot otherwise, of which a process would have nearly
 * every page; behind it all other blocks; and outside those that are given back before the snapshot is made. */
static struct event {
    const void *block;
    size_t size; /* 0: given back */
} *events;
static size_t event_count, taken_count;
static const struct plan {
    uint64_t sizes[PLACES];
    uint32_t blocks[]; /* size of each, and its place */
} *plan;
static char *places[PLACES + 1], *outside;

static int in_snapshot(const void *memory)
{
    return (const char *)memory >= heap && (const char *)memory < heap_free;
}

/* The content of a file, or room for one: not in the snapshot. */
static void *map(const char *path, size_t size)
{
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    int kind = path ? MAP_PRIVATE : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *memory = mmap(NULL, size, path ? PROT_READ : PROT_READ | PROT_WRITE, kind, file, 0);
    if (memory == MAP_FAILED)
        Py_FatalError("cannot map what the build needs");
    if (path)
        close(file);
    return memory;
}

static void divide(const char *told)
{
    if (!told)
        return;
    plan = map(told, LARGEST);
    for (int i = 0; i < PLACES; i++) {
        places[i] = heap_free;
        heap_free += plan->sizes[i];
    }
    places[OUTSIDE] = outside = map(NULL, LARGEST);
}

static int is_outside(const void *memory)
{
    return outside && (const char *)memory >= outside && (const char *)memory < places[OUTSIDE];
}

static void *take(size_t size)
{
    size = size ? (size + UNIT - 1) & -UNIT : UNIT;
    char **place = &heap_free;
    if (plan) {
        uint32_t told = plan->blocks[taken_count++];
        if ((told & -UNIT) != size)
            Py_FatalError("the second run takes other blocks than the first");
        place = &places[told % UNIT];
    }
    char *block = *place;
    *place += size;
    if (heap_free > heap_end)
        Py_FatalError("the heap of the snapshot is too small");
    events[event_count++] = (struct event){block, size};
    return block;
}

static void *take_aligned(size_t size, size_t alignment)
{
    return (void *)(((uintptr_t)take(size + alignment) + alignment - 1) & -alignment);
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
    if (is_loading && block)
        events[event_count++] = (struct event){block, 0};
    else if (!in_snapshot(block))
        __real_free(block);
}

void *__wrap_realloc(void *block, size_t size)
{
    if (!is_loading && !in_snapshot(block))
        return __real_realloc(block, size);
    void *copy = __wrap_malloc(size);
    if (copy && block) { /* how large it was is not known: what lies behind it is copied as well */
        size_t rest = in_snapshot(block) ? (size_t)(heap_free - (char *)block) : size;
        memcpy(copy, block, size < rest ? size : rest);
        __wrap_free(block);
    }
    return copy;
}

int __real_posix_memalign(void **memory, size_t alignment, size_t size);

int __wrap_posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (!is_loading)
        return __real_posix_memalign(memory, alignment, size);
    *memory = take_aligned(size, alignment);
    return 0;
}

/* Python's own allocator rests while the program is loaded. */
static void *object_malloc(void *context, size_t size)
{
    return take(size);
}

static void *object_calloc(void *context, size_t count, size_t size)
{
    return take(count * size);
}

static void *object_realloc(void *context, void *block, size_t size)
{
    return __wrap_realloc(block, size);
}

static void object_free(void *context, void *block)
{
    __wrap_free(block);
}

/* Python's stacks as well are arenas. */
static void *allocate_arena(void *context, size_t size)
{
    if (is_loading)
        return take_aligned(size, PAGE);
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

static void free_arena(void *context, void *arena, size_t size)
{
    if (!in_snapshot(arena))
        munmap(arena, size);
}

static void swap_allocators(PyMemAllocatorEx *allocators)
{
    for (int domain = PYMEM_DOMAIN_MEM; domain <= PYMEM_DOMAIN_OBJ; domain++) {
        PyMemAllocatorEx before;
        PyMem_GetAllocator(domain, &before);
        PyMem_SetAllocator(domain, &allocators[domain]);
        allocators[domain] = before;
    }
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
    config.use_hash_seed = 1; /* the tables of the snapshot are made with it: 0011, point 7 */
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

/* The cache of methods has names that nothing else has any more, by chance: by their addresses. */
static void forget_outside(void)
{
    struct type_cache *cache = &PyInterpreterState_Get()->types.type_cache;
    for (int i = 0; i < 1 << MCACHE_SIZE_EXP; i++)
        if (is_outside(cache->hashtable[i].name)) {
            cache->hashtable[i].version = 0;
            Py_SETREF(cache->hashtable[i].name, Py_NewRef(Py_None));
        }
}

/* Whether all that was taken outside was given back. */
static int is_whole(void)
{
    long count = 0;
    for (size_t i = 0; i < event_count; i++)
        if (is_outside(events[i].block))
            count += events[i].size ? 1 : -1;
    return count == 0;
}

static void keep_all(void)
{
    pending = map(NULL, LARGEST);
    PyUnstable_GC_VisitObjects(keep_referents, NULL);
    pending = NULL;
}

static int write_file(const char *path, const void *memory, size_t size)
{
    FILE *file = fopen(path, "w");
    return file && fwrite(memory, 1, size, file) == size && !fclose(file) ? 0 : -1;
}

static __attribute__((noinline)) int load(const char *script, const char *snapshot, const char *told,
                                          const char *plan_file)
{
    events = map(NULL, LARGEST);
    divide(plan_file);
    PyMemAllocatorEx objects = {NULL, object_malloc, object_calloc, object_realloc, object_free};
    PyMemAllocatorEx allocators[] = {objects, objects, objects};
    swap_allocators(allocators);
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){NULL, allocate_arena, free_arena});
    is_loading = 1;
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
    if (pthread_key_create(&key, NULL))
        return 1;
    forget_outside();
    keep_all();
    thread_keys = key;
    PyOS_BeforeFork();
    PyThreadState *thread = PyThreadState_Get();
    thread->native_thread_id = 0;
    memset(thread->datastack_top, 0, (char *)thread->datastack_limit - (char *)thread->datastack_top);
    is_loading = 0;
    is_loaded = 1;
    swap_allocators(allocators);
    if (!is_whole())
        Py_FatalError("the snapshot needs what is outside of it");
    if (write_file(told, events, event_count * sizeof *events))
        return 1;
    events = NULL;
    plan = NULL;
    outside = NULL;
    return write_file(snapshot, snapshot_start, heap_free - snapshot_start);
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
    return argc == 4 || argc == 5 ? load(argv[1], argv[2], argv[3], argv[4]) : 2;
}
