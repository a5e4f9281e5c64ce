/* lib/program: CPython, configured and started for one program.
 *
 * Isolated as by `python -IS`: no variable, no user or site directory, no current directory steers it. What a pull
 * needs of Python is frozen into this file (modules.h, generated); the rest of the standard library and what is for
 * people lies as byte code in lib/python.zip. Extension modules are loaded as if they were built in, so that sys.path
 * is not searched for them.
 *
 * Python starts in two phases (PEP 587). The first has built-in and frozen modules, which is all that a pull needs; the
 * second, more than half of the work, brings sys.path, codecs, sys.stdin, sys.stdout and signal handlers. It is run at
 * once for a command, and for a kubelet when something first asks for what is not in memory: see `finish`.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <malloc.h>
#include <netdb.h>
#include <nss.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/crypto.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "modules.h"

/* By their own names, as they keep what is called so out of Python's static library: the modules that it has frozen, as
 * 1.1 MB of objects of which every start would intern the names, in 200 pages. modules.h has what is needed of them. */
static const struct _frozen no_modules[1];
static const struct {
    const char *name, *original;
} no_aliases[1];
const struct _frozen *PyImport_FrozenModules = no_modules;
const struct _frozen *_PyImport_FrozenBootstrap = bundle_bootstrap;
const struct _frozen *_PyImport_FrozenStdlib = no_modules;
const struct _frozen *_PyImport_FrozenTest = no_modules;
const void *_PyImport_FrozenAliases = no_aliases;

int _Py_Deepfreeze_Init(void)
{
    return 0;
}

void _Py_Deepfreeze_Fini(void)
{
}
#if PY_VERSION_HEX >> 16 == 0x030c
unsigned int _Py_next_func_version = 1;
#endif

/* Without early_os.py, which is the first. */
static const struct _frozen *const bundle_frozen = bundle_early + 1;

static char tree[PATH_MAX], archive[PATH_MAX + 64];

/* This file is <tree>/lib/program; the launcher named it by its absolute path, and the loader says so. */
static int find_tree(void)
{
    const char *program = (const char *)getauxval(AT_EXECFN);
    if (!program || *program != '/' || strlen(program) >= sizeof tree)
        return 0;
    strcpy(tree, program);
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(tree, '/');
        if (!slash)
            return 0;
        *slash = 0;
    }
    snprintf(archive, sizeof archive, "%s/lib/python.zip", tree);
    return 1;
}

/* OpenSSL's default provider without the ciphers that TLS has no use for, and without decoders of keys that sign nothing:
 * no certificate has one. To ask for one makes an object of every one that there is, 124 and 40: a tenth of a pull. What
 * is not named here is kept. */
static const char *const unwanted_ciphers[] = {
    "ARIA-", "CAMELLIA-", "DES", "SM4-", "-192-", "-OFB", "-CFB", "-XTS", "-OCB", "-SIV", "-WRAP", "-CTS", NULL,
};
static const char *const unwanted_keys[] = {"DH", "DHX", "X25519", "X448", NULL};
static const char *const unwanted_formats[] = {"input=msblob", "input=pvk", NULL};

static int has_any(const char *text, const char *const *words)
{
    while (text && *words && !strstr(text, *words))
        words++;
    return text && *words;
}

/* Of names with colons between them the first is the algorithm's own. */
static int is_any(const char *names, const char *const *words)
{
    size_t length = strcspn(names, ":");
    while (*words && (strlen(*words) != length || memcmp(names, *words, length) != 0))
        words++;
    return *words != NULL;
}

static int is_wanted_cipher(const OSSL_ALGORITHM *cipher)
{
    return !has_any(cipher->algorithm_names, unwanted_ciphers);
}

static int is_wanted_decoder(const OSSL_ALGORITHM *decoder)
{
    return !is_any(decoder->algorithm_names, unwanted_keys) && !has_any(decoder->property_definition, unwanted_formats);
}

enum { ALGORITHMS = 128 };
static OSSL_ALGORITHM kept_ciphers[ALGORITHMS], kept_decoders[ALGORITHMS];
static OSSL_FUNC_provider_query_operation_fn *query_default;

/* Lists what is wanted of an operation; fails where there is nothing, or more than there is room for. */
static int choose(void *context, int operation, int (*is_wanted)(const OSSL_ALGORITHM *), OSSL_ALGORITHM *kept)
{
    int no_cache;
    const OSSL_ALGORITHM *algorithm = query_default(context, operation, &no_cache);
    size_t count = 0;
    for (; algorithm && algorithm->algorithm_names && count < ALGORITHMS - 1; algorithm++)
        if (is_wanted(algorithm))
            kept[count++] = *algorithm;
    return algorithm && !algorithm->algorithm_names;
}

static const OSSL_ALGORITHM *query_operation(void *context, int operation, int *no_cache)
{
    const OSSL_ALGORITHM *all = query_default(context, operation, no_cache);
    return operation == OSSL_OP_CIPHER ? kept_ciphers : operation == OSSL_OP_DECODER ? kept_decoders : all;
}

extern OSSL_provider_init_fn ossl_default_provider_init;

static int start_provider(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core, const OSSL_DISPATCH **functions,
                          void **context)
{
    enum { FUNCTIONS = 32 };
    static OSSL_DISPATCH own[FUNCTIONS];
    if (!ossl_default_provider_init(handle, core, functions, context))
        return 0;
    for (size_t i = 0; i < FUNCTIONS - 1 && (*functions)[i].function_id; i++) {
        own[i] = (*functions)[i];
        if (own[i].function_id == OSSL_FUNC_PROVIDER_QUERY_OPERATION) {
            query_default = OSSL_FUNC_provider_query_operation(&own[i]);
            own[i].function = (void (*)(void))query_operation;
        }
    }
    /* Where one of these fails, the default provider's own functions stay, with all that it has. */
    if (query_default && choose(*context, OSSL_OP_CIPHER, is_wanted_cipher, kept_ciphers)
        && choose(*context, OSSL_OP_DECODER, is_wanted_decoder, kept_decoders))
        *functions = own;
    return 1;
}

/* Before OpenSSL is used. The node's openssl.cnf may name modules of another OpenSSL. The table of ciphers by their old
 * names, 2.3 M instructions, serves encrypted private keys and S/MIME alone; TLS takes its ciphers from the provider. The
 * texts of OpenSSL's errors, 1 M, are for nobody: Python knows their names. */
static void configure_openssl(const char *module)
{
    static int done;
    if (done || (strcmp(module, "_ssl") != 0 && strcmp(module, "_hashlib") != 0))
        return;
    done = 1;
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS
                         | OPENSSL_INIT_NO_LOAD_SSL_STRINGS,
                     NULL);
    /* OpenSSL takes the default provider itself where no other was loaded. */
    if (OSSL_PROVIDER_add_builtin(NULL, "tls", start_provider))
        OSSL_PROVIDER_load(NULL, "tls");
}

/* The module of lib/python/<name>.so; called by its entry in the table of built-in modules. */
PyObject *bundle_load(const char *name)
{
    char path[PATH_MAX + 128], function[128];
    snprintf(path, sizeof path, "%s/lib/python/%s.so", tree, name);
    snprintf(function, sizeof function, "PyInit_%s", name);
    configure_openssl(name);
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    PyObject *(*init)(void) = library ? (PyObject * (*)(void)) dlsym(library, function) : NULL;
    if (!init) {
        PyErr_Format(PyExc_ImportError, "%s", dlerror());
        return NULL;
    }
    return init();
}

/* Where distributions keep the system's CAs, as Go's crypto/x509 looks for them; libcrypto knows its own one's alone.
 * Only a plugin that was told no CA of the cluster uses them. */
static void find_system_cas(void)
{
    static const char *const files[] = {
        "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Ubuntu, Arch */
        "/etc/pki/tls/certs/ca-bundle.crt",                  /* Fedora, RHEL 6 */
        "/etc/ssl/ca-bundle.pem",                            /* openSUSE */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* RHEL 7 and newer */
        "/etc/ssl/cert.pem",                                 /* Alpine */
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (access(files[i], R_OK) == 0) {
            setenv("SSL_CERT_FILE", files[i], 1);
            return;
        }
}

static void configure_libraries(void)
{
    find_system_cas();
    /* No plugin of the node's libc: another version than ours. As Go's own resolver does. */
    __nss_configure_lookup("hosts", "files dns");
    __nss_configure_lookup("passwd", "files");
    __nss_configure_lookup("group", "files");
    __nss_configure_lookup("services", "files");
}

/* The first arena of Python's small objects, and the heap behind it, in one huge page where the kernel has one: a pull
 * touches 500 pages of 4 KiB of them, each at the price of a fault, 1 ms in all. The heap begins one small page before
 * the huge one, since malloc writes to its first page before anyone could ask for a huge one. */
enum { PAGE = 4 << 10, HUGE_PAGE = 2 << 20, ARENA = 1 << 20, USUAL_THRESHOLD = 128 << 10 };
static char *first_arena;
static int gave_first_arena;

static void ask_for_huge_page(void)
{
    char *start = (char *)(((uintptr_t)sbrk(0) + PAGE + HUGE_PAGE - 1) & -(uintptr_t)HUGE_PAGE);
    if (sbrk(start - PAGE - (char *)sbrk(0)) == (void *)-1)
        return;
    mallopt(M_TOP_PAD, HUGE_PAGE); /* for good: less would let free() give the huge page back in parts */
    mallopt(M_MMAP_THRESHOLD, HUGE_PAGE);
    static void *volatile begun; /* for the compiler, which would leave out what nobody looks at */
    begun = malloc(1);
    madvise(start, HUGE_PAGE, MADV_HUGEPAGE);
    first_arena = malloc(ARENA);
    mallopt(M_MMAP_THRESHOLD, USUAL_THRESHOLD);
}

static void *allocate_arena(void *unused, size_t size)
{
    if (first_arena && !gave_first_arena && size == ARENA) {
        gave_first_arena = 1;
        return first_arena;
    }
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

static void free_arena(void *unused, void *arena, size_t size)
{
    if (arena != first_arena)
        munmap(arena, size);
}

static PyStatus configure(PyConfig *config, int argc, char **argv)
{
    char launcher[PATH_MAX + 64];
    snprintf(launcher, sizeof launcher, "%s/bin/crio-credential-provider", tree);
    config->_init_main = 0;
    config->site_import = 0;
    config->write_bytecode = 0;
    config->pathconfig_warnings = 0;
    config->install_signal_handlers = 1;
    config->use_frozen_modules = 1;
    config->module_search_paths_set = 1;
    PyStatus status = PyConfig_SetBytesArgv(config, argc, argv);
    struct {
        wchar_t **field;
        const char *value;
    } paths[] = {
        {&config->program_name, launcher}, {&config->executable, launcher},  {&config->base_executable, launcher},
        {&config->prefix, tree},           {&config->base_prefix, tree},     {&config->exec_prefix, tree},
        {&config->base_exec_prefix, tree},
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths && !PyStatus_Exception(status); i++)
        status = PyConfig_SetBytesString(config, paths[i].field, paths[i].value);
    wchar_t *path = Py_DecodeLocale(archive, NULL);
    if (!PyStatus_Exception(status))
        status = path ? PyWideStringList_Append(&config->module_search_paths, path) : PyStatus_NoMemory();
    PyMem_RawFree(path);
    return status;
}

static PyStatus start_python(int argc, char **argv)
{
    /* Without setlocale: no variable and no locale of the node has a say, text is UTF-8. */
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status))
        return status;
    PyObject_SetArenaAllocator(&(PyObjectArenaAllocator){NULL, allocate_arena, free_arena});
    PyImport_FrozenModules = bundle_frozen;
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    status = configure(&config, argc, argv);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return status;
}

/* A frozen package knows of no other place for its modules. */
static int extend_into_archive(const char *name)
{
    PyObject *package = PyImport_ImportModule(name);
    PyObject *path = package ? PyObject_GetAttrString(package, "__path__") : NULL;
    PyObject *place = path ? PyUnicode_FromFormat("%s/%s", archive, name) : NULL;
    int status = place ? PyList_Append(path, place) : -1;
    Py_XDECREF(place);
    Py_XDECREF(path);
    Py_XDECREF(package);
    return status;
}

/* Runs the standard library's os in the module that early_os.py has made, which is then no other than the real one. */
static int complete_os(void)
{
    PyImport_FrozenModules = bundle_frozen;
    PyObject *os = PyImport_ImportModule("os");
    PyObject *imp = os ? PyImport_ImportModule("_imp") : NULL;
    PyObject *code = imp ? PyObject_CallMethod(imp, "get_frozen_object", "s", "os") : NULL;
    PyObject *names = code ? PyModule_GetDict(os) : NULL;
    PyObject *result = NULL;
    if (names && PyDict_DelItemString(names, "__getattr__") == 0)
        result = PyEval_EvalCode(code, names, names);
    Py_XDECREF(result);
    Py_XDECREF(code);
    Py_XDECREF(imp);
    Py_XDECREF(os);
    return result ? 0 : -1;
}

/* The second phase of Python's start. */
static int finish_start(void)
{
    PyStatus status = _Py_InitializeMain();
    if (access(archive, R_OK) != 0) {
        fprintf(stderr, "crio-credential-provider: cannot start: %s: %s; install the program again\n", archive,
                strerror(errno));
        _exit(1);
    }
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    return extend_into_archive("encodings") < 0 || extend_into_archive("crio_credential_provider") < 0 ? -1 : 0;
}

/* _bundle.finish(): the same, for code that already runs. Other calls than the first do nothing. */
static PyObject *finish(PyObject *module, PyObject *unused)
{
    static int finished;
    if (finished++)
        Py_RETURN_NONE;
    PyObject *finders = PySys_GetObject("meta_path");
    if (!finders || PyList_SetSlice(finders, PyList_GET_SIZE(finders) - 1, PyList_GET_SIZE(finders), NULL) < 0)
        return NULL;
    if (finish_start() < 0 || complete_os() < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* _bundle.find_spec(): what the import system asks when no other finder has the module. */
static PyObject *find_spec(PyObject *module, PyObject *arguments)
{
    PyObject *done = finish(module, NULL);
    PyObject *importlib = done ? PyImport_ImportModule("_frozen_importlib") : NULL;
    PyObject *find = importlib ? PyObject_GetAttrString(importlib, "_find_spec") : NULL;
    PyObject *spec = find ? PyObject_CallObject(find, arguments) : NULL;
    Py_XDECREF(find);
    Py_XDECREF(importlib);
    Py_XDECREF(done);
    return spec;
}

static PyMethodDef functions[] = {
    {"finish", finish, METH_NOARGS, NULL},
    {"find_spec", find_spec, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_bundle", .m_size = -1, .m_methods = functions};

PyObject *PyInit__bundle(void)
{
    return PyModule_Create(&module);
}

/* Our modules that every pull imports, each before those that import it: half of what the import system does for a module
 * is to find it, and to write down how it was found. */
static int preload(void)
{
    for (const char *const *name = bundle_preloaded; *name; name++) {
        const char *dot = strrchr(*name, '.');
        PyObject *parent = PyUnicode_FromStringAndSize(*name, dot ? dot - *name : 0);
        PyObject *module = PyImport_AddModule(*name); /* borrowed, as the package */
        PyObject *package = parent && dot ? PyImport_AddModuleObject(parent) : NULL;
        /* A package's own code imports nothing, so that it does with the same. */
        if (!module || !parent || (dot && !package) || PyObject_SetAttrString(module, "__package__", parent) < 0
            || PyImport_ImportFrozenModule(*name) <= 0 || (dot && PyObject_SetAttrString(package, dot + 1, module) < 0))
            return -1;
        Py_DECREF(parent);
    }
    return 0;
}

/* What a pull uses of the second phase. */
static int start_early(int argc, char **argv)
{
    PyImport_FrozenModules = bundle_early;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    PyObject *arguments = PyList_New(0);
    for (int i = 0; i < argc && arguments; i++) {
        PyObject *argument = PyUnicode_DecodeFSDefault(argv[i]);
        if (!argument || PyList_Append(arguments, argument) < 0)
            Py_CLEAR(arguments);
        Py_XDECREF(argument);
    }
    PyObject *self = PyImport_ImportModule("_bundle"), *finders = PySys_GetObject("meta_path");
    PyObject *io = PyImport_ImportModule("_io"), *builtins = PyImport_ImportModule("builtins");
    PyObject *open = io ? PyObject_GetAttrString(io, "open") : NULL;
    PyObject *output = PyFile_NewStdPrinter(STDOUT_FILENO);
    int failed = !arguments || !self || !finders || !open || !output || PySys_SetObject("argv", arguments) < 0
                 || PySys_SetObject("stdout", output) < 0 || PyList_Append(finders, self) < 0
                 || PyObject_SetAttrString(builtins, "open", open) < 0;
    return failed ? -1 : preload(); /* these objects live as long as the process */
}

/* What the file that was executed is called decides; the kubelet's entry has any other name. The self-test is run by the
 * build, through a symlink of its own. */
static const struct entry {
    const char *name, *module, *function;
} entries[] = {
    {"install-on-node", "install_on_node", "main"},
    {"self-test", "crio_credential_provider.testbed.selftest", "main"},
    {NULL, "crio_credential_provider.__main__", "main"},
};

static const struct entry *find_entry(const char *executed)
{
    const char *slash = strrchr(executed, '/');
    const struct entry *entry = entries;
    while (entry->name && strcmp(entry->name, slash ? slash + 1 : executed) != 0)
        entry++;
    return entry;
}

/* A kubelet gives flags alone; --help and the like finish the start when they import what they need. */
static int is_for_kubelet(const struct entry *entry, int argc, char **argv)
{
    return !entry->name && (argc < 2 || *argv[1] == '-');
}

static PyObject *run(const struct entry *entry, int argc, char **argv)
{
    if ((is_for_kubelet(entry, argc, argv) ? start_early(argc, argv) : finish_start()) < 0)
        return NULL;
    PyObject *module = PyImport_ImportModule(entry->module);
    return module ? PyObject_CallMethod(module, entry->function, NULL) : NULL;
}

int main(int argc, char **argv)
{
    if (argc < 1 || !find_tree()) {
        fputs("crio-credential-provider: run bin/crio-credential-provider instead\n", stderr);
        return 2;
    }
    ask_for_huge_page();
    configure_libraries();
    PyStatus status = start_python(argc, argv);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    PyGC_Disable(); /* a run makes few cycles */
    if (!run(find_entry(argv[0]), argc, argv)) {
        PyErr_Print(); /* ends the process for a SystemExit */
        return 1;
    }
    return Py_FinalizeEx() < 0; /* a pull has left with os._exit before this */
}
