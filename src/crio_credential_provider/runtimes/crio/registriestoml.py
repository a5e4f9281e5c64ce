"""registries.conf as TOML, decoded as CRI-O's library does, and its keys by their types. Knows no rule about tables."""

from __future__ import annotations

from ...errors import ConfigError, masked
from ...platform.jsontext import fold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ...platform.tomllines import Path

LOCATION = "HOST[:PORT][/PATH]"


class Refused(ConfigError):
    """What CRI-O's library refuses in one file.

    Args:
        path: of keys and positions, where in the document it is.
        remedy: what to do there; ``{where}`` stands for the place, which else goes before it.
        other: the path of what it contradicts.
        line: where no document is there that a path could lead into.
    """

    def __init__(
        self, message: str, rule: str, path: Path = (), remedy: str = "", other: Path = (), line: int = 0
    ) -> None:
        super().__init__(message, remedy, rule=rule, line=line)
        self.path = path
        self.other = other


_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_INT64 = range(-(2**63), 2**63)


def decode(data: bytes) -> dict[str, Any]:
    """TOML 1.1 as Go's BurntSushi/toml takes it: one byte order mark of any kind is dropped, the rest is UTF-8."""
    for mark in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            data = data[len(mark) :]
            break
    if not data.strip(b" \t\n"):
        return {}
    # tomli takes 13 ms of CPU to import; this is only reached when a file changed.
    import tomli

    try:
        document = tomli.loads(data.decode(), parse_float=_parse_float)
        _check_integers(document)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"not valid TOML: byte {error.start} is not UTF-8"
        raise Refused(reason, "toml-syntax", remedy="save it as UTF-8", line=line) from None
    except (ValueError, RecursionError) as error:
        raise _not_toml("nested too deeply" if isinstance(error, RecursionError) else str(error), data) from None
    return document


def _not_toml(reason: str, data: bytes) -> ConfigError:
    """The error of the parser, with what people most often did."""
    from .registriestext import mended

    digits = reason.partition("at line ")[2].partition(",")[0]
    lines = data.decode("utf-8", "replace").split("\n")
    line = int(digits) if digits.isdigit() else len(data.splitlines()) if "at end of document" in reason else 0
    meant = mended(lines[line - 1]) if line else ""
    remedy = f"write {meant}" if meant else ""
    if reason.startswith("Exceeds the limit"):  # Python's own words, for a number of thousands of digits
        reason = "an integer is out of the 64-bit range"
    elif ("Cannot overwrite" in reason or "Cannot declare" in reason) and not (
        meant.startswith("[[") and meant != lines[line - 1].strip()
    ):
        from ...platform.tomllines import find_lines

        at = find_lines("\n".join(lines))
        early = next((here for path, here in at.items() if path[:2] == ("registry", "mirror")), 0)
        if early:
            line, reason = early, f"[[registry.mirror]] is above every [[registry]] ({reason})"
            remedy = "move [[registry.mirror]] from {where} below the [[registry]] that it mirrors"
        else:
            reason, remedy = f"{reason}: duplicate key or table", "remove one of the two"
    elif b"\0" in data[:4]:
        reason, remedy = f"{reason}: it is UTF-16", "save it as UTF-8"
    elif data.lstrip().startswith((b"{", b"<")):
        kind = "JSON" if data.lstrip().startswith(b"{") else "HTML"
        reason, remedy = f"{reason}: it looks like {kind}", "write [[registry]] tables"
    elif b"=" not in data and b":" in data:
        reason, remedy = f"{reason}: it looks like YAML", "write [[registry]] tables"
    elif "Invalid value" in reason and (not meant or '"' in meant):
        quotes = "the value in double quotes"
        remedy = f"{remedy}, {quotes}" if meant else f'write {quotes}, as in location = "docker.io"'
    elif "Expected newline" in reason and not meant:
        remedy = "write each setting on a line of its own"
    return Refused(f"not valid TOML: {masked(reason)}", "toml-syntax", remedy=remedy, line=line)


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")) and "inf" not in text:
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _check_integers(document: dict[str, Any]) -> None:
    """Go's integers end at 64 bits, also under unknown keys."""
    pending: list[Any] = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, int) and value not in _INT64:
            raise ValueError("an integer is out of the 64-bit range")


def fold_keys(table: dict[str, Any]) -> dict[str, Any]:
    """A table with its keys folded; an exact spelling wins."""
    folded = {fold(key): value for key, value in table.items()}
    folded.update({key: value for key, value in table.items() if key in folded})
    return folded


def wrong_type(where: str, expected: str, path: Path, remedy: str = "") -> ConfigError:
    return Refused(f"{where} must be {expected}", "toml-type", path, remedy)


def quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{without_user(value)}"' for value in values)


def without_user(value: str) -> str:
    """A place as it is to be written again: one with a user or a query as it was most likely meant."""
    if masked(value) == value:
        return value
    from .registriestext import corrected

    return corrected(value) or LOCATION


def get_string(table: dict[str, Any], key: str, where: str, at: Path = ()) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        is_one = isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
        text = without_user(value[0]) if is_one else LOCATION if key in ("location", "prefix") else "..."
        raise wrong_type(f"{where}{key}", "a string", (*at, key), f'write {key} = "{text}"')
    return value


def get_boolean(table: dict[str, Any], key: str, where: str, at: Path) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        is_true = str(value).strip().lower() in ("true", "yes", "on", "1")
        remedy = f"write {key} = {'true' if is_true else 'false'}"
        raise wrong_type(f"{where}{key}", "true or false, without quotes", (*at, key), remedy)
    return value


def get_strings(table: dict[str, Any], key: str, where: str, at: Path = ()) -> list[str] | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        texts = ["..."]
        if isinstance(value, str):
            texts = value.replace(",", " ").split() if masked(value) == value else [value]
        raise wrong_type(f"{where}{key}", "an array of strings", (*at, key), f"write {key} = [{quoted(texts)}]")
    return value


def get_tables(table: dict[str, Any], key: str, where: str, at: Path = ()) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return [fold_keys(item) for item in value]
    header = "[[registry.mirror]]" if at else f"[[{key}]]"
    expected, path, remedy = f"an array of tables, {header}", (*at, key), f"write {header}"
    if not at and isinstance(value, dict) and set(value) == {"mirror"}:
        from .registriestext import nearest_key

        expected += ": [[registry.mirror]] has no [[registry]] above it"
        path += ("mirror", 0)
        remedy = 'above {where} write [[registry]] and location = "docker.io", or the registry that is mirrored'
        meant = [other for other in table if other != key and nearest_key(other, (key,))]
        if meant:
            path, remedy = (meant[0],), f"write [[registry]] in place of [[{meant[0]}]]"
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        tables = ", ".join(f'{{location = "{without_user(item)}"}}' for item in value)
        remedy = f"write {key} = [{tables}]"
    elif isinstance(value, str):
        remedy = f'write {key} = [{{location = "{without_user(value)}"}}]'
    raise wrong_type(f"{where}{key}", expected, path, remedy)


def get_table(table: dict[str, Any], key: str, where: str, at: Path = ()) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        remedy = "write [[registry]]" if key == "registries" and isinstance(value, list) else f"write [{where}{key}]"
        raise wrong_type(f"{where}{key}", f"a table, [{key}]", (*at, key), remedy)
    return fold_keys(value)
