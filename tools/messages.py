"""Prints every message of the program with its place: each text of more than one word in the source.

python3 tools/messages.py [WORD]       file:line, then the text; only those with WORD
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "crio_credential_provider"


def messages(source: Path = SOURCE) -> Iterator[tuple[str, int, str]]:
    """File, line and text, with {...} where a value is put in. Docstrings are for whoever reads the source."""
    for path in sorted(source.rglob("*.py")):
        for line, text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            if re.search(r"\w\W* \W*\w", text):
                yield str(path.relative_to(source)), line, text


def _texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.JoinedStr):
        yield node.lineno, ast.unparse(node) if not node.values else _shown(node)
        inner: list[ast.AST] = [part for part in node.values if isinstance(part, ast.FormattedValue)]
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.lineno, node.value
        return
    else:
        inner = [child for child in ast.iter_child_nodes(node) if not _is_docstring(child)]
    for child in inner:
        yield from _texts(child)


def _shown(node: ast.JoinedStr) -> str:
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue):
            parts.append(f"{{{ast.unparse(part.value)}}}")
    return "".join(parts)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def main(words: list[str]) -> None:
    for file, line, text in messages():
        if all(word in text for word in words):
            sys.stdout.write(f"{file}:{line}: {text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
