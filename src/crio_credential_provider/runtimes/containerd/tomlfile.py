"""A TOML file of containerd, decoded, and what is told of one that it cannot decode. Loaded when a file changed."""

from __future__ import annotations

from ...errors import ConfigError, masked
from ...platform import regularfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes."""


class NotToml(Exception):
    """A file that is not TOML, or not of the types that it must have.

    Args:
        line: 0 where it is not known.
        unclear: containerd may decode it, and this reader cannot.
    """

    def __init__(self, reason: str, line: int = 0, unclear: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.unclear = unclear


def read(path: str, consequence: str) -> bytes | None:
    """The file's content; None where there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        data = regularfile.read(path, _MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", rule="io", consequence=consequence) from None
    if len(data) > _MAX_FILE_SIZE:
        raise ConfigError(f"{path} is larger than {_MAX_FILE_SIZE >> 20} MiB", "split or shorten it", rule="io")
    return data


def decode(data: bytes, lax: bool = False) -> dict[str, Any]:
    """A document, in TOML 1.0.

    Args:
        lax: takes any number and date; containerd's parsers take some that are neither.

    Raises:
        NotToml: it cannot be decoded.
    """
    import tomli

    from ...platform import tomllines

    try:
        text = data.decode()
        document = tomli.loads(tomllines.without_bare_values(text) if lax else text)
        newer = tomllines.find_newer(text)
        if newer:
            raise NotToml("not valid TOML: containerd does not know TOML 1.1", newer)
        return document
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotToml(f"not valid TOML: byte {error.start} is not UTF-8", line) from None
    except RecursionError:
        raise NotToml("not valid TOML: nested too deeply") from None
    except ValueError as error:
        digits = str(error).partition("at line ")[2].partition(",")[0]
        line = int(digits) if digits.isdigit() else 0
        headers = tomllines.find_headers(text)
        unclear = "Cannot declare" in str(error) and all(headers.count(keys) == 1 for keys in headers)
        raise NotToml(f"not valid TOML: {masked(str(error))}", line, unclear) from None
