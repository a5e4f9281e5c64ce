"""What the operator can set: one table of flags, each also an environment variable.

``--auth-dir /x`` and ``CRIO_CREDENTIAL_PROVIDER_AUTH_DIR=/x`` are the same; the flag wins. With ``--root DIR`` every
default path lies below DIR; a path given by flag or environment is taken as given. Knows nothing about what the values
are for.

>>> loads(["--deadline=5s", "--mirror-registry", "mirror.corp:5000/hub"], {}).deadline
5.0
"""

from __future__ import annotations

from .errors import UsageError, masked
from .images import reference
from .platform.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

ENVIRONMENT_PREFIX = "CRIO_CREDENTIAL_PROVIDER_"

LOG_LEVELS = ("error", "warning", "info", "debug")
NAMESPACE, POD, SERVICE_ACCOUNT = "namespace", "pod", "service-account"
SECRETS_FROM = (NAMESPACE, POD, SERVICE_ACCOUNT)
CRIO, CONTAINERD, AUTO = "crio", "containerd", "auto"
RUNTIMES = (CRIO, CONTAINERD, AUTO)

# A kubelet asks for at most a few KiB, the token included.
MAX_REQUEST_SIZE = 1024 * 1024

LATEST_ANSWER = 50.0
"""Seconds from its start after which a run answers come what may: the kubelet kills it at 60."""

_DAY = 86400.0


class Flag(Record):
    """One setting.

    Attributes:
        name: as on the command line, without the dashes.
        default: as a person would write it; for a path, below ``--root``.
        parse: text -> value; raises ValueError with what would be right.
        metavar: what stands for the value in the help; "" for a switch.
        help: one sentence.
        is_path: whether the default lies below ``--root``.
        repeatable: whether each use adds one value; in the environment these are separated by commas.
    """

    __slots__ = ("default", "help", "is_path", "metavar", "name", "parse", "repeatable")

    def __init__(
        self,
        name: str,
        default: str,
        parse: Callable[[str], Any],
        metavar: str,
        help: str,
        *,
        is_path: bool = False,
        repeatable: bool = False,
    ) -> None:
        self.name = name
        self.default = default
        self.parse = parse
        self.metavar = metavar
        self.help = help
        self.is_path = is_path
        self.repeatable = repeatable

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.attribute.upper()


# -- values -----------------------------------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _text(text: str) -> str:
    return text


def _path(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError("an absolute path")
    return text


def duration(least: float, most: float) -> Callable[[str], float]:
    """Seconds, written as Kubernetes writes durations: ``500ms``, ``20s``, ``1m``, or a bare number of seconds."""

    def parse(text: str) -> float:
        number = text.rstrip("hms")
        unit = text[len(number) :] or "s"
        digits = number.replace(".", "", 1)
        if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
            raise ValueError("a duration such as 500ms, 20s or 1m")
        seconds = float(number) * _UNITS[unit]
        if not least <= seconds <= most:
            raise ValueError(f"between {least:g}s and {most:g}s")
        return seconds

    return parse


def _megabytes(text: str) -> int:
    """Bytes, from a number of MiB."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= 4096):
        raise ValueError("a number of MiB from 1 to 4096")
    return int(text) * 1024 * 1024


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return parse


def _mirror_registry(text: str) -> str:
    """HOST[:PORT][/PATH], matched at the boundaries of path components."""
    domain, slash, path = text.rstrip("/").partition("/")
    if not reference.is_domain(domain) or (slash and not reference.is_path(path)):
        raise ValueError("HOST[:PORT][/PATH], without https:// and without wildcards")
    return f"{domain}{slash}{path}"


FLAGS = (
    Flag(
        "secrets-from",
        "namespace",
        _choice(*SECRETS_FROM),
        "|".join(SECRETS_FROM),
        "which pull secrets to use: all of the namespace (listed as the pod), the pod's imagePullSecrets (read "
        "as the node), or its service account's (read as the pod)",
    ),
    Flag(
        "mirror-registry",
        "",
        _mirror_registry,
        "HOST[:PORT][/PATH]",
        "use namespace credentials only for pull sources at or below this one, and for images that are there "
        "themselves",
        repeatable=True,
    ),
    Flag(
        "runtime",
        "auto",
        _choice(*RUNTIMES),
        "|".join(RUNTIMES),
        "the container runtime that pulls; auto: containerd if the kubelet's container runtime endpoint names it and "
        "there is an /etc/containerd, else CRI-O",
    ),
    Flag(
        "registries-conf",
        "",
        _path,
        "FILE",
        "registries.conf, like CRI-O's --registries-conf: drop-ins are read as well; default: where CRI-O looks",
    ),
    Flag(
        "registries-conf-dir",
        "",
        _path,
        "DIR",
        "the only drop-in directory, like CRI-O's --registries-conf-dir; default: where CRI-O looks",
    ),
    Flag("auth-dir", "/etc/crio/auth", _path, "DIR", "CRI-O's namespaced_auth_dir, where auth files go", is_path=True),
    Flag(
        "global-auth-file",
        "/var/lib/kubelet/config.json",
        _path,
        "FILE",
        "the node's auth file, for pull sources without a credential in the namespace's secrets",
        is_path=True,
    ),
    Flag(
        "containerd-config",
        "/etc/containerd/config.toml",
        _path,
        "FILE",
        "containerd's configuration file, which leads to the hosts.toml of each registry",
        is_path=True,
    ),
    Flag(
        "allow-fallback-exposure",
        "false",
        _switch,
        "",
        "containerd: answer with a credential although other hosts of hosts.toml, the upstream registry among them, "
        "may be shown it",
    ),
    Flag(
        "kubeconfig",
        "",
        _path,
        "FILE",
        "kubeconfig with the API server's address; default: the kubelet's own",
    ),
    Flag(
        "apiserver",
        "",
        _text,
        "URL",
        "the API server, https://HOST[:PORT][/PATH]; takes precedence over every kubeconfig",
    ),
    Flag(
        "apiserver-env-file",
        "/etc/kubernetes/apiserver-url.env",
        _path,
        "FILE",
        "file with KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, for nodes without a kubeconfig",
        is_path=True,
    ),
    Flag(
        "certificate-authority",
        "",
        _path,
        "FILE",
        "CA certificates to verify the API server with; default: those of the kubeconfig",
    ),
    Flag(
        "insecure-skip-tls-verify",
        "false",
        _switch,
        "",
        "do not verify the API server's certificate: for tests only, as any server at that address gets the pod's "
        "token",
    ),
    Flag(
        "deadline",
        "20s",
        duration(0.1, LATEST_ANSWER),
        "DURATION",
        "time limit for all requests to the API server, retries included",
    ),
    Flag("max-answer-size", "32", _megabytes, "MIB", "largest accepted answer of the API server, in MiB"),
    Flag(
        "no-pull-record",
        "false",
        _switch,
        "",
        "do not tell the kubelet that the image was pulled with credentials of the pod's service account",
    ),
    Flag(
        "pod-events",
        "false",
        _switch,
        "",
        "write an Event on the pod when a run fails or finds no credential for its mirrors; needs the kubelet's client "
        "certificate",
    ),
    Flag(
        "kubelet-root-dir",
        "/var/lib/kubelet",
        _path,
        "DIR",
        "the kubelet's --root-dir, with its pull intents",
        is_path=True,
    ),
    Flag(
        "hand-off-timeout",
        "30s",
        duration(0, LATEST_ANSWER),
        "DURATION",
        "time to wait until the previous auth file of the same name is taken by its pull; 0: overwrite it",
    ),
    Flag(
        "hand-off-grace",
        "250ms",
        duration(0, LATEST_ANSWER),
        "DURATION",
        "time in which the kubelet's pull intent appears after a run; halved for each file in a row that no pull took; "
        "at least 1s if the kubelet has no pull intents",
    ),
    Flag(
        "stale-after",
        "10s",
        duration(1, _DAY),
        "DURATION",
        "age from which an auth file that no pull intent names is removed; at least 1h if the kubelet has no pull "
        "intents",
    ),
    Flag(
        "cache-dir",
        "/run/crio-credential-provider",
        _path,
        "DIR",
        "cache of parsed configuration and the runs' lock; empty: none",
        is_path=True,
    ),
    Flag(
        "journal-socket",
        "/run/systemd/journal/socket",
        _path,
        "SOCKET",
        "journald's native socket; empty: do not log",
        is_path=True,
    ),
    Flag("log-level", "info", _choice(*LOG_LEVELS), "|".join(LOG_LEVELS), "lowest level that is logged to the journal"),
    Flag("root", "", _path, "DIR", "prefix of every default path"),
)


class Settings:
    """The value of each flag, as an attribute of its name. Durations are in seconds, sizes in bytes."""

    secrets_from: str
    mirror_registry: tuple[str, ...]
    runtime: str
    registries_conf: str
    registries_conf_dir: str
    auth_dir: str
    global_auth_file: str
    containerd_config: str
    allow_fallback_exposure: bool
    kubeconfig: str
    apiserver: str
    apiserver_env_file: str
    certificate_authority: str
    insecure_skip_tls_verify: bool
    deadline: float
    max_answer_size: int
    no_pull_record: bool
    pod_events: bool
    kubelet_root_dir: str
    hand_off_timeout: float
    hand_off_grace: float
    stale_after: float
    cache_dir: str
    journal_socket: str
    log_level: str
    root: str

    def __getattr__(self, name: str) -> Any:
        """The default of a flag that was not given, when it is first asked for: a run asks for a third of them."""
        flag = FLAGS_BY_NAME.get(name.replace("_", "-"))
        if flag is None:
            raise AttributeError(name)
        value = () if flag.repeatable else flag.parse(self.root + flag.default if flag.is_path else flag.default)
        setattr(self, name, value)
        return value


def loads(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from a command line (without the program's name) and an environment.

    Raises:
        UsageError: an unknown flag, a missing or an impossible value; names the flag or variable.
    """
    # Each value with where it was given; the flag wins.
    given = {**_from_environment(environment), **_from_arguments(arguments)}
    settings = Settings()
    for name, texts in given.items():
        flag = FLAGS_BY_NAME[name]
        values = [_value(flag, origin, text) for origin, text in texts]
        setattr(settings, flag.attribute, tuple(values) if flag.repeatable else values[-1])
    settings.root = settings.root.rstrip("/")
    if settings.insecure_skip_tls_verify and (settings.secrets_from == POD or settings.pod_events):
        user = "--secrets-from pod" if settings.secrets_from == POD else "--pod-events"
        raise UsageError(
            f"--insecure-skip-tls-verify cannot be used with {user}",
            "remove one of the two: any server at that address could act as this node",
        )
    return settings


FLAGS_BY_NAME = {flag.name: flag for flag in FLAGS}


def check_root(settings: Settings) -> None:
    """Raises UsageError where ``--root`` leads to no directory: every file below it would count as absent."""
    if not settings.root:
        return
    import os

    try:
        os.stat(f"{settings.root}/.")
    except FileNotFoundError:
        raise UsageError(f"--root: {settings.root}: no such directory") from None
    except OSError as error:
        raise UsageError(f"--root: {settings.root}: {(error.strerror or 'cannot be used').lower()}") from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are not: most likely typing mistakes."""
    return sorted(name for name in _variables(environment) if _flag_of(name) is None)


def _variables(environment: Mapping[str, str]) -> list[str]:
    return [name for name in environment if name.startswith(ENVIRONMENT_PREFIX)]


def _flag_of(variable: str) -> Flag | None:
    flag = FLAGS_BY_NAME.get(variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", "-"))
    return flag if flag is not None and flag.variable == variable else None


def _value(flag: Flag, origin: str, text: str) -> Any:
    try:
        return flag.parse(text)
    except ValueError as error:
        raise UsageError(f"{origin}: {masked(text)!r} is not {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    given = {}
    for variable in _variables(environment):
        flag = _flag_of(variable)
        if flag is not None:
            text = environment[variable]
            texts = [part.strip() for part in text.split(",") if part.strip()] if flag.repeatable else [text]
            given[flag.name] = [(variable, text) for text in texts]
    return given


def _from_arguments(arguments: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """What is given for each flag, in order."""
    given: dict[str, list[tuple[str, str]]] = {}
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        name, equals, text = argument.removeprefix("--").partition("=")
        flag = FLAGS_BY_NAME.get(name)
        if flag is None or not argument.startswith("--"):
            what = "flag" if argument.startswith("-") else "argument"
            word = argument.partition("=")[0]
            raise UsageError(f"unknown {what} {masked(word)!r}", "--help lists the flags and commands", unknown=word)
        if not flag.metavar:
            text = text if equals else "true"
        elif not equals:
            if not rest:
                raise UsageError(f"--{name} needs a value, {flag.metavar}")
            text = rest.pop()
        given.setdefault(name, []).append((f"--{name}", text))
    return given
