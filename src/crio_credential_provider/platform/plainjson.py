"""Small and plain JSON documents, without the module ``json``: importing it takes 10 million instructions of 45.

Takes a part of JSON that the kubelet's request, a token's claims, a list of few secrets and our own answers keep to:
printable strings without escapes, whole numbers, and little nesting. Whatever else, a mistake included, is left to
``json``. What is taken, is taken as ``json`` takes it: tests/test_plainjson.py holds the two against each other.

>>> loads('{"kind": "List", "items": [1, true, null]}', None, int)
{'kind': 'List', 'items': [1, True, None]}
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MAX_QUOTES = 600
"""About six secrets with what the API server keeps of each: with more, importing ``json`` costs less than this."""

_MAX_DEPTH = 50
_MAX_DIGITS = 30
"""Times in nanoseconds have 19."""

_WORDS = {"true": True, "false": False, "null": None}


class NotPlain(Exception):
    """The document, or the value, is for ``json``."""


def loads(text: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None, parse_int: Callable[[str], Any]) -> Any:
    """The value of a document.

    Args:
        pairs_hook, parse_int: as ``object_pairs_hook`` and ``parse_int`` of ``json.loads``.

    Raises:
        NotPlain: it is not of the part that is taken here, or no JSON at all.
    """
    if "\\" in text or text.count('"') > MAX_QUOTES:
        raise NotPlain
    tokens = iter(_tokens(text))
    value = _value(next(tokens, ""), tokens, pairs_hook or dict, parse_int, _MAX_DEPTH)
    if next(tokens, None) is not None:
        raise NotPlain
    return value


def _tokens(text: str) -> list[str]:
    """Brackets, commas, colons and bare words; strings with a quotation mark before them."""
    # Without escapes, every second piece between quotation marks is a string.
    pieces = text.split('"')
    if len(pieces) % 2 == 0:
        raise NotPlain
    tokens: list[str] = []
    known: dict[str, list[str]] = {}
    is_string = False
    for piece in pieces:
        if is_string:
            if not piece.isprintable():
                raise NotPlain
            tokens.append(f'"{piece}')
        else:
            marks = known.get(piece)
            if marks is None:
                marks = known[piece] = _marks(piece)
            tokens += marks
        is_string = not is_string
    return tokens


def _marks(piece: str) -> list[str]:
    """What stands between two strings."""
    for mark in "{}[],:":
        piece = piece.replace(mark, f" {mark} ")
    return [mark for mark in piece.replace("\n", " ").replace("\t", " ").replace("\r", " ").split(" ") if mark]


def _value(
    token: str,
    tokens: Iterator[str],
    make_object: Callable[[list[tuple[str, Any]]], Any],
    parse_int: Callable[[str], Any],
    depth: int,
) -> Any:
    """The value that begins with a token."""
    if token[:1] == '"':
        return token[1:]
    if token in _WORDS:
        return _WORDS[token]
    if token.isascii() and token.isdigit() and len(token) <= _MAX_DIGITS and (token == "0" or token[0] != "0"):
        return parse_int(token)
    if token not in ("{", "[") or not depth:
        raise NotPlain
    found: list[Any] = []
    end = "}" if token == "{" else "]"
    token = next(tokens, "")
    if token != end:
        while True:
            if end == "}":
                if token[:1] != '"' or next(tokens, "") != ":":
                    raise NotPlain
                found.append((token[1:], _value(next(tokens, ""), tokens, make_object, parse_int, depth - 1)))
            else:
                found.append(_value(token, tokens, make_object, parse_int, depth - 1))
            token = next(tokens, "")
            if token == end:
                break
            if token != ",":
                raise NotPlain
            token = next(tokens, "")
    return make_object(found) if end == "}" else found


def dumps(value: Any) -> str:
    """Compact JSON in ASCII.

    Raises:
        NotPlain: the value holds something else than plain strings, lists, dicts with strings as keys, and constants.
    """
    if isinstance(value, str):
        if not (value.isascii() and value.isprintable()) or '"' in value or "\\" in value:
            raise NotPlain
        return f'"{value}"'
    if isinstance(value, dict):
        return f"{{{','.join([f'{_key(key)}:{dumps(member)}' for key, member in value.items()])}}}"
    if isinstance(value, list):
        return f"[{','.join([dumps(item) for item in value])}]"
    for word, constant in _WORDS.items():
        if value is constant:
            return word
    if type(value) is int:
        return str(value)
    raise NotPlain


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise NotPlain
    return dumps(key)
