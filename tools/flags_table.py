"""Prints the table of flags, or brings docs/reference/flags.md and the manual page up to date, from what parses them.

    python3 tools/flags_table.py              prints the table
    python3 tools/flags_table.py FILE...      replaces what stands between the two markers of each file

A file whose name ends in a digit is a manual page.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from crio_credential_provider.settings import FLAGS, Flag

_HEAD = "| flag | default | what it is |\n|---|---|---|\n"
_REPEATABLE = "repeatable, in the variable separated by commas"


def table() -> str:
    """The rows in the order of ``--help``, with the head."""
    return _HEAD + "".join(map(_row, FLAGS))


def _row(flag: Flag) -> str:
    # A | inside a cell ends it, even between backticks: choices stand below one another.
    first, *choices = flag.metavar.split("|")
    name = "".join((f"`--{flag.name} {first}".rstrip() + "`", *(f"<br>`{choice}`" for choice in choices)))
    default = f"`{flag.default}`" if flag.default else ""
    note = f"; {_REPEATABLE}" if flag.repeatable else ""
    return f"| {name} | {default} | {flag.help}{note} |\n"


def manual() -> str:
    """The same as tagged paragraphs of man(7)."""
    return "".join(map(_paragraph, FLAGS))


def _paragraph(flag: Flag) -> str:
    name = f'.BI "--{flag.name} " {flag.metavar}' if flag.metavar else f".B --{flag.name}"
    lines = [name, f"{flag.help}{f'; {_REPEATABLE}' if flag.repeatable else ''}."]
    if flag.default not in ("", "false"):
        lines.append(f"Default: {flag.default}.")
    lines += [".br", flag.variable]
    return ".TP\n" + "".join(line.replace("-", "\\-") + "\n" for line in lines)


def replaced(text: str, fresh: str, what: str = "flags") -> str:
    """The text with fresh lines between the lines that say ``flags: begin`` and ``flags: end``."""
    lines = text.splitlines(keepends=True)
    begin = [number for number, line in enumerate(lines) if f"{what}: begin" in line]
    end = [number for number, line in enumerate(lines) if f"{what}: end" in line]
    if len(begin) != 1 or len(end) != 1:
        sys.exit(f"there must be one line with '{what}: begin' and one with '{what}: end'")
    return "".join((*lines[: begin[0] + 1], fresh, *lines[end[0] :]))


def main(arguments: list[str]) -> None:
    if not arguments:
        sys.stdout.write(table())
        return
    for argument in arguments:
        path = Path(argument)
        path.write_text(replaced(path.read_text(), manual() if path.suffix[1:].isdigit() else table()))


if __name__ == "__main__":
    main(sys.argv[1:])
