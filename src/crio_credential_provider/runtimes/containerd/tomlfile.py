"""A TOML file of containerd, decoded, and what is told of one that it cannot decode. Loaded when a file changed."""

from __future__ import annotations

from ...errors import ConfigError, masked
from ...platform import regularfile, tomllines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_FILE_SIZE = 16 * 1024 * 1024
"""Bytes."""


class NotToml(Exception):
    """A file that containerd does not decode.

    Args:
        line: 0 where it is not known.
        is_doubtful: some release may take what it can of it, as of a text that is not TOML.
    """

    def __init__(self, reason: str, line: int = 0, is_doubtful: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.is_doubtful = is_doubtful


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


def decode(data: bytes) -> dict[str, Any]:
    """A document, in TOML 1.0.

    Raises:
        NotToml: it cannot be decoded.
    """
    import tomli

    try:
        text = data.decode()
        document = tomli.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotToml(f"not valid TOML: byte {error.start} is not UTF-8", line, is_doubtful=True) from None
    except RecursionError:
        raise NotToml("not valid TOML: nested too deeply", is_doubtful=True) from None
    except ValueError as error:
        digits = str(error).partition("at line ")[2].partition(",")[0]
        line = int(digits) if digits.isdigit() else 0
        raise NotToml(f"not valid TOML: {masked(str(error))}", line, is_doubtful=True) from None
    newer = tomllines.find_newer(text)
    if newer:
        raise NotToml("not valid TOML: containerd does not know TOML 1.1", newer, is_doubtful=True)
    return document


def unescaped(key: str) -> str:
    """A key as a text has it between its quotes."""
    return str(decode(f'key = "{key}"'.encode())["key"]) if "\\" in key else key
