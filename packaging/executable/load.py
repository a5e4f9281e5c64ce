"""Loads the program: run in the build, by the executable itself (program.c), which then keeps its memory.

What a pull may use is imported here, and lies in memory when the process of a pull begins; everything else is imported
from the archive at the end of the file. ``start`` is what each process runs.
"""

import codecs
import gc
import importlib
import os
import ssl
import sys
import zipimport

ARCHIVE = "/proc/self/exe"
# For people, who wait for some milliseconds more.
COLD = ("audit", "commands", "demo", "doctor", "explanation", "fleet", "manifests", "node", "registryclient", "rollout")
COLD += ("tenant", "testbed", "version", "kubernetes/credentialproviderconfig", "kubernetes/imagepatterns")


def import_modules():
    # First what most of the others build on, so that it lies together.
    for name in "hashlib", "json", "socket", "ssl", "tomli":
        importlib.import_module(name)
    for path in zipimport._zip_directory_cache[ARCHIVE]:
        package, _, rest = path.removesuffix(".pyc").removesuffix("/__init__").partition("/")
        if package == "crio_credential_provider" and path.endswith(".pyc") and not rest.startswith(COLD):
            importlib.import_module(f"{package}.{rest.replace('/', '.')}".removesuffix("."))


def find_codec(name):
    """The codec "idna", which ``ssl`` asks for, for names in ASCII; the standard one brings ``unicodedata``, 1.1 MB."""
    if name != "idna":
        return None
    ascii = codecs.lookup("ascii")
    return codecs.CodecInfo(ascii.encode, ascii.decode, name="idna")


def shake_hands(directory, certificate, version):
    """A whole handshake with ourselves. OpenSSL looks up each algorithm once in its life, which takes longer than to
    use it: so it is done here, in both versions of TLS and for both kinds of certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(f"{directory}/authority.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{directory}/{certificate}.pem")
    server.maximum_version = version
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname="handshake"), server.wrap_bio(there, back, server_side=True)]
    waiting = list(ends)
    while waiting:
        for end in [*waiting]:
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    for writer, reader in (ends, ends[::-1]):
        writer.write(b"x" * 20000)
        reader.read(20000)


def start(program):
    """Runs in each process; `program` is the path by which it was executed."""
    if not os.path.exists(ARCHIVE):
        find_archive(os.path.abspath(program))
    from crio_credential_provider.__main__ import arguments_of, main

    sys.argv[1:] = arguments_of(sys.argv)
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        serve_people(program)
    main()


def find_archive(path):
    """Where there is no /proc, by the file's name."""
    sys.path[:] = [path]
    for module in [*sys.modules.values()]:
        if hasattr(module, "__path__"):
            module.__path__ = [place.replace(ARCHIVE, path) for place in module.__path__]


def serve_people(program):
    """What a pull can do without: the program's name, and standard streams as Python has them."""
    try:
        program = os.readlink(ARCHIVE)
    except OSError:
        program = os.path.abspath(program)
    sys.executable = sys.argv[0] = program
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            setattr(sys, name, None)
    if sys.stdout:
        sys.stdout.reconfigure(line_buffering=os.isatty(1))


def load():
    import_modules()
    codecs.register(find_codec)
    for certificate in "rsa", "ec":
        for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
            shake_hands("handshake", certificate, version)
    # The build's; a process has its own.
    os.environ.clear()
    # The archive's place in the file that is being made is another one.
    zipimport._zip_directory_cache.clear()
    sys.path_importer_cache.clear()
    print(*sys.modules, flush=True)
    gc.collect()
    gc.freeze()
    gc.disable()


load()
