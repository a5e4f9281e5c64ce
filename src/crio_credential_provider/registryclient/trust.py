"""Whom CRI-O trusts for a registry, and what it shows: the system's CAs and ``certs.d``. Opens no connection."""

from __future__ import annotations

import os
import pwd
import re
import ssl

from ..errors import ConfigError
from .verdict import TLS, Fault

_MAX_FILE = 16 * 1024 * 1024

# Where Go, and so CRI-O, looks for the system's CAs: the first of the files, and all in the directories.
_SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_SYSTEM_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")
_HOME_CERTIFICATES = ".config/containers/certs.d"
CERTIFICATE_DIRECTORIES = ("/etc/containers/certs.d", "/etc/docker/certs.d")

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def _home_directories() -> list[str]:
    """The one below the user's home; none for a user without one, as in a container."""
    try:
        home = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return []
    return [f"{home}/{_HOME_CERTIFICATES}"]


class Trust:
    """The CAs for one registry, and the certificate to show it.

    Attributes:
        context: for all connections of a probe, those to its token service included, as with CRI-O.
        directory: of certs.d, "" where there is none for this host.
        flaws: what in it does not count, for people.
        allows_plain: what has plain HTTP asked.
    """

    allows_plain = "insecure = true for its location in registries.conf allows plain HTTP"

    def __init__(self, host: str, insecure: bool, root: str) -> None:
        self._root = root
        self.directory = self._find_directory(host)
        self.flaws: list[str] = []
        self._make_context(insecure)
        self._load_directory(insecure)

    def _make_context(self, insecure: bool) -> None:
        """With the system's CAs alone."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if insecure:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        else:
            # For Go every certificate in its pool is a root, self-signed or not.
            self.context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            self._trust_the_system()

    def _find_directory(self, host: str) -> str:
        """The first that exists: the others are not read."""
        for directory in (*_home_directories(), *CERTIFICATE_DIRECTORIES):
            path = f"{self._root}{directory}/{host}"
            try:
                os.stat(path)
                return path
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _not_readable(path, error) from None
        return ""

    def _trust_the_system(self) -> None:
        for path in _SYSTEM_FILES:
            data = read(self._root + path)
            if data is not None:
                self._trust(data)
                break
        for directory in _SYSTEM_DIRECTORIES:
            for name in _names(self._root + directory):
                path = f"{self._root}{directory}/{name}"
                # On Debian half of them are links to their neighbours.
                if not (os.path.islink(path) and "/" not in os.readlink(path)) and os.path.isfile(path):
                    self._trust(read(path) or b"")

    def _trust(self, data: bytes) -> bool:
        """Adds the certificates of a PEM file, and skips everything else, as Go does."""
        loaded = False
        for block in _PEM.findall(data):
            try:
                self.context.load_verify_locations(cadata=block.decode("ascii"))
                loaded = True
            except (ssl.SSLError, ValueError):
                continue
        return loaded

    def _load_directory(self, insecure: bool) -> None:
        """Reads certs.d: ``*.crt`` are CAs, ``*.cert`` with ``*.key`` are shown to the registry."""
        names = _names(self.directory) if self.directory else []
        pairs = []
        for name in names:
            path = f"{self.directory}/{name}"
            stem, ending = os.path.splitext(name)
            if ending == ".crt" and not insecure and not self._trust(read(path) or b""):
                self.flaws.append(f"{path} has no PEM certificate")
            partner = {".cert": ".key", ".key": ".cert"}.get(ending)
            if partner and stem + partner not in names:
                raise Fault(
                    TLS,
                    f"CRI-O refuses {self.directory}: {name} without {stem}{partner}",
                    f"add {stem}{partner} or remove {name}; CA files are named *.crt",
                    "certs.d",
                )
            if ending == ".cert":
                pairs.append(stem)
            if ending not in (".crt", ".cert", ".key"):
                self.flaws.append(f"{path} is not read: only *.crt, *.cert and *.key are")
        # Of several certificates that would do Go takes the first, OpenSSL the one that was loaded last.
        for stem in reversed(pairs):
            self._load_client_certificate(f"{self.directory}/{stem}")

    def _load_client_certificate(self, stem: str) -> None:
        try:
            # The password keeps OpenSSL from asking for one on the terminal.
            self.context.load_cert_chain(f"{stem}.cert", f"{stem}.key", password="")
        except PermissionError as error:
            raise _not_readable(f"{stem}.key", error) from None
        except (OSError, ValueError):
            raise Fault(
                TLS,
                f"CRI-O refuses {self.directory}: {stem}.cert and {stem}.key are not a certificate with its key in PEM",
                "put the client's certificate and its key there, the key without a passphrase",
                "certs.d",
            ) from None

    def remedy_of_client(self, host: str) -> str:
        """What to do for a host that requires a client certificate."""
        return f"put client.cert and client.key into {self._place(host)}/"

    def remedy_of_ca(self, host: str, others: list[str]) -> str:
        """What to do for a host whose CA is not trusted.

        Args:
            others: as of ``near_misses``.
        """
        rename = ""
        if others and not self.directory:
            rename = f"if {others[0]} is meant for it, rename it to {host}; otherwise "
        system = "or into the system's CAs and restart CRI-O"
        return f"{rename}put its CA into {self._place(host)}/ca.crt, which CRI-O reads at each pull, {system}"

    def _place(self, host: str) -> str:
        """The directory of certs.d in which CAs for the host are read."""
        return self.directory or f"{self._root}{CERTIFICATE_DIRECTORIES[0]}/{host}"

    def near_misses(self, host: str) -> list[str]:
        """Directories of certs.d that were probably meant for this host."""
        name = host.partition(":")[0]
        found = []
        for directory in CERTIFICATE_DIRECTORIES:
            for other in _names(self._root + directory):
                path = f"{self._root}{directory}/{other}"
                if other.partition(":")[0] == name and path != self.directory:
                    found.append(path)
        return found


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _not_readable(directory, error) from None


def read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_FILE)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise _not_readable(path, error) from None


def _not_readable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}", "run this as root, like CRI-O")
