"""The hosts that containerd asks for the images of a registry, by hosts.toml or by registry.mirrors, in its order.

Follows containerd 1.6, 1.7 and 2.0 to 2.3, section by section of docs/reference/containerd.md.

    for host in hosts_for(config, "docker.io", cache).hosts:
        print(host.url, host.capabilities)
"""

from __future__ import annotations

import os

from ...errors import ConfigError, masked
from ...platform.record import Record
from . import goaddress
from .readings import FAILS, READINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...platform.parsecache import ParseCache
    from .config import Configuration

ALL = ("pull", "resolve", "push")
_DOCKER_HUB = "registry-1.docker.io"


class Host(Record):
    """A host that containerd asks.

    Attributes:
        url: as people are shown it.
        scheme: http or https; of what is asked first.
        host: HOST[:PORT] as containerd dials it.
        path: of the API: /v2, /v2/proxy, /proxy/v2, ...
        capabilities: of pull, resolve and push.
        skip_verify: the server's certificate is not verified.
        plain_http: asked by HTTP, at once or where TLS fails.
        ca: files of certificate authorities.
        client: files of client certificates with their keys, the key ``""`` where one file has both.
        headers: names of those that are sent with each request.
        is_server: the registry itself, or the server that the file names in its place; asked last.
        file: the file that names it, "" for the registry itself.
    """

    __slots__ = (
        "ca",
        "capabilities",
        "client",
        "file",
        "headers",
        "host",
        "is_server",
        "path",
        "plain_http",
        "scheme",
        "skip_verify",
    )

    def __init__(
        self,
        scheme: str,
        host: str,
        path: str,
        capabilities: tuple[str, ...] = ALL,
        skip_verify: bool = False,
        plain_http: bool = False,
        ca: tuple[str, ...] = (),
        client: tuple[tuple[str, str], ...] = (),
        headers: tuple[str, ...] = (),
        is_server: bool = False,
        file: str = "",
    ) -> None:
        self.scheme = scheme
        self.host = host
        self.path = path
        self.capabilities = capabilities
        self.skip_verify = skip_verify
        self.plain_http = plain_http
        self.ca = ca
        self.client = client
        self.headers = headers
        self.is_server = is_server
        self.file = file

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def sends_authorization(self) -> bool:
        """Whether the file gives it a credential of the node's own."""
        return any(name.lower() == "authorization" for name in self.headers)


class Found(Record):
    """The hosts of a registry.

    Attributes:
        domain: the registry, as an image names it.
        hosts: in containerd's order. Where its releases differ, all that any of them asks.
        directory: that counts, "" for none.
        file: the hosts.toml or config.toml that counts, "" for none.
        ignored: what containerd logs at most, and does not take.
        doubt: why it may ask other hosts than these, "" where it does not.
        advice: what to do about the last that is ignored, "" where that says it itself.
    """

    __slots__ = ("advice", "directory", "domain", "doubt", "file", "hosts", "ignored")

    def __init__(
        self,
        domain: str,
        hosts: tuple[Host, ...],
        directory: str = "",
        file: str = "",
        ignored: tuple[str, ...] = (),
        doubt: str = "",
        advice: str = "",
    ) -> None:
        self.domain = domain
        self.hosts = hosts
        self.directory = directory
        self.file = file
        self.ignored = ignored
        self.doubt = doubt
        self.advice = advice


def hosts_for(config: Configuration, domain: str, cache: ParseCache) -> Found:
    """The hosts of a registry.

    Args:
        domain: of an image: ``docker.io``, ``mirror.corp:5000``.

    Raises:
        ConfigError: containerd fails every pull from this registry.
    """
    ignored: list[str] = []
    doubts: list[str] = []
    directory = find_directory(config.config_path, domain)
    file = f"{directory}/hosts.toml" if directory else config.file if config.mirrors else ""
    by_reading = each_reading(config, domain, directory, cache, ignored, doubts)
    hosts = list(
        dict.fromkeys(
            host
            for reading in reversed(READINGS)
            if reading in config.readings
            for each in by_reading[reading]
            for host in each
        )
    )
    if config.unsure and (config.mirrors or directory):
        ignored.append(f"{config.unsure}, and may ask {domain} itself alone")
        server = _server(domain)
        if not any((host.host, host.path) == (server.host, server.path) for host in hosts):
            hosts.append(server)
    return Found(domain, tuple(hosts), directory, file, tuple(ignored), "".join(doubts), config.advice)


def each_reading(
    config: Configuration, domain: str, directory: str, cache: ParseCache, ignored: list[str], doubts: list[str]
) -> dict[str, list[list[Host]]]:
    """The hosts as each release of containerd reads the files, several lists where more than that decides;
    what it does not take is added to ``ignored``, and why there may be further hosts to ``doubts``."""
    if not config.config_path:
        return {reading: [_mirrors(config, domain)] for reading in READINGS}
    if not directory:
        return {reading: [[_server(domain)]] for reading in READINGS}
    return _of_directory(directory, domain, config.readings, cache, ignored, doubts)


# -- directories ------------------------------------------------------------------------------------------------------


def find_directory(roots: tuple[str, ...], domain: str) -> str:
    """The directory of a registry below the first root that has one, ``_default`` included; "" for none."""
    for root in roots:
        for name in directory_names(domain):
            path = goaddress.clean(f"{root}/{name}")
            try:
                os.stat(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unreadable(path, error) from None
            return path
    return ""


def directory_names(domain: str) -> tuple[str, ...]:
    """The names that containerd looks for, in its order."""
    host, colon, port = domain.rpartition(":")
    return (f"{host}_{port}_", domain, "_default") if colon and host else (domain, "_default")


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}", rule="io", consequence=FAILS)


def _of_directory(
    directory: str, domain: str, releases: tuple[str, ...], cache: ParseCache, ignored: list[str], doubts: list[str]
) -> dict[str, list[list[Host]]]:
    file = f"{directory}/hosts.toml"

    def make() -> dict[str, Any]:
        from . import hostsfile

        return hostsfile.form(file)

    form = cache.form((file,), make)
    readings = form.get("readings") or dict.fromkeys(READINGS, (None,))
    answers = [
        [_host(row, domain, directory, file, number == len(rows)) for number, row in enumerate(rows, 1)]
        for rows in form.get("answers", ())
    ]
    if form and any(None in readings[reading] for reading in releases):
        where = f"{file}:{form['line']}" if form["line"] else file
        if any(reading in form["doubtful"] for reading in releases):
            doubts.append(f"{where}: {form['reason']}")
        every = all(readings[reading][0] is None for reading in releases)
        who = "containerd ignores" if every else "some releases of containerd ignore"
        alike = all(any(host.host == _server(domain).host for host in hosts) for hosts in answers)
        if every or not alike:
            ignored.append(f"{where}: {form['reason']}: {who} the file")
    alone = [_by_certificates(directory, domain)] if any(None in taken for taken in readings.values()) else []
    return {
        reading: [alone if position is None else answers[position] for position in readings[reading]]
        for reading in READINGS
    }


def _host(row: list[Any], domain: str, directory: str, file: str, is_last: bool) -> Host:
    scheme, host, path, capabilities, skip_verify, ca, client, headers = row[:8]
    if is_last and not host:
        made = _server(domain, skip_verify, bool(ca or client))
        scheme, host, path, capabilities = made.scheme, made.host, made.path, list(made.capabilities)
        skip_verify, plain = made.skip_verify, made.plain_http
    else:
        is_tls = skip_verify is not None or bool(ca or client)
        scheme, plain = _spoken(scheme, host, is_tls)
    return Host(
        scheme,
        host,
        path,
        tuple(capabilities),
        bool(skip_verify),
        plain,
        tuple(_absolute(name, directory) for name in ca),
        tuple((_absolute(cert, directory), _absolute(key, directory) if key else "") for cert, key in client),
        tuple(headers),
        is_last,
        file,
    )


def _absolute(name: str, directory: str) -> str:
    return name if name.startswith("/") else goaddress.clean(f"{directory}/{name}")


def _spoken(scheme: str, host: str, is_tls: bool) -> tuple[str, bool]:
    """The scheme that is tried first, and whether plain HTTP is spoken: with settings for TLS only where that fails."""
    if scheme != "http":
        return scheme, False
    split = goaddress.split_port(host)
    if is_tls and (split[1] if split else "") != "80":
        return "https", True
    return "http", True


def own_host(domain: str) -> str:
    """HOST[:PORT] of the registry itself, as containerd dials it."""
    return _DOCKER_HUB if domain == "docker.io" else domain


def _server(domain: str, skip_verify: bool | None = None, is_tls: bool = False) -> Host:
    """The registry itself."""
    host, scheme = own_host(domain), "https"
    if goaddress.is_localhost(domain):
        split = goaddress.split_port(domain)
        port = split[1] if split else ""
        scheme = "https" if port in ("", "443") else "http"
        if port != "80":
            skip_verify = True
    scheme, plain = _spoken(scheme, host, is_tls or skip_verify is not None)
    return Host(scheme, host, "/v2", ALL, bool(skip_verify), plain, is_server=True)


def _by_certificates(directory: str, domain: str) -> Host:
    """The registry itself, with the certificates of its directory."""
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if not entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise _unreadable(directory, error) from None
    ca = tuple(f"{directory}/{name}" for name in names if name.endswith(".crt"))
    client = tuple(
        (f"{directory}/{name}", key if os.path.exists(key := f"{directory}/{name[:-5]}.key") else "")
        for name in names
        if name.endswith(".cert")
    )
    made = _server(domain, None, bool(ca or client))
    return Host(made.scheme, made.host, made.path, ALL, made.skip_verify, made.plain_http, ca, client, is_server=True)


# -- registry.mirrors -------------------------------------------------------------------------------------------------


def _mirrors(config: Configuration, domain: str) -> list[Host]:
    endpoints = config.mirrors.get(domain, config.mirrors.get("*", []))
    found: list[Host] = []
    has_server = False
    for endpoint in endpoints:
        text = endpoint
        try:
            if "://" not in endpoint:
                host = goaddress.parse_url(f"dummy://{endpoint}", strict=False)[1]
                text = f"{'http' if goaddress.is_localhost(host) else 'https'}://{endpoint}"
            scheme, host, path = goaddress.parse_url(text, strict=False)
        except ValueError as error:
            raise ConfigError(
                f"{config.file}: the endpoint {masked(endpoint)!r} of registry.mirrors is not a URL: {error}",
                f"in {config.file} write https://HOST[:PORT]",
                rule="endpoint",
                consequence=FAILS,
            ) from None
        has_server = has_server or host == domain
        skip = host in config.insecure or (scheme == "http" and goaddress.is_localhost(domain))
        found.append(
            Host(
                scheme, host, path or "/v2", ALL[:2], skip, scheme == "http", is_server=host == domain, file=config.file
            )
        )
    if not has_server:
        host = own_host(domain)
        scheme = "http" if goaddress.is_localhost(host) else "https"
        skip = scheme == "http"
        found.append(Host(scheme, host, "/v2", ALL[:2], skip, scheme == "http", is_server=True))
    return found
