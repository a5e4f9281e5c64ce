/* lib/program: CPython, configured and started for one program.
 *
 * Isolated as by `python -IS`: no variable, no user or site directory, no current directory steers it. What a pull
 * needs of Python is frozen into this file (modules.c, generated); the rest of the standard library and what is for
 * people lies as byte code in lib/python.zip. Extension modules are loaded as if they were built in, so that sys.path
 * is not searched for them.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <limits.h>
#include <locale.h>
#include <netdb.h>
#include <nss.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "modules.h"

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

/* The module of lib/python/<name>.so; called by its entry in the table of built-in modules. */
PyObject *bundle_load(const char *name)
{
    char path[PATH_MAX + 128], function[128];
    snprintf(path, sizeof path, "%s/lib/python/%s.so", tree, name);
    snprintf(function, sizeof function, "PyInit_%s", name);
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
    /* The node's openssl.cnf may name modules of another OpenSSL. */
    setenv("OPENSSL_CONF", "/dev/null", 1);
    find_system_cas();
    /* No plugin of the node's libc: another version than ours. As Go's own resolver does. */
    __nss_configure_lookup("hosts", "files dns");
    __nss_configure_lookup("passwd", "files");
    __nss_configure_lookup("group", "files");
    __nss_configure_lookup("services", "files");
}

static PyStatus configure(PyConfig *config, int argc, char **argv)
{
    char launcher[PATH_MAX + 64];
    snprintf(launcher, sizeof launcher, "%s/bin/crio-credential-provider", tree);
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

/* What the file that was executed is called decides; the kubelet's entry has any other name. The self-test is run by the
 * build, through a symlink of its own. */
static const struct entry {
    const char *name, *module, *function;
} entries[] = {
    {"install-on-node", "install_on_node", "main"},
    {"self-test", "crio_credential_provider.demo.selftest", "main"},
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

static PyObject *run(const struct entry *entry)
{
    if (extend_into_archive("encodings") < 0 || extend_into_archive("crio_credential_provider") < 0)
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
    configure_libraries();
    PyStatus status = start_python(argc, argv);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    if (!run(find_entry(argv[0]))) {
        PyErr_Print(); /* ends the process for a SystemExit */
        return 1;
    }
    return Py_FinalizeEx() < 0; /* a pull has left with os._exit before this */
}
