"""Prints doctor's findings with their stories, or brings docs/reference/findings.md up to date, from the catalogue.

python3 tools/findings.py              prints them
python3 tools/findings.py FILE...      replaces what stands between the two markers of each file
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from crio_credential_provider.doctor.catalogue import AREAS, Entry, sentence

BEGIN, END = "<!-- findings: begin -->\n", "<!-- findings: end -->\n"
_WIDTH = 120


def findings() -> str:
    """A section for each area and each code. Signs that several findings share are told once, and linked to."""
    parts = []
    first: dict[str, str] = {}
    for area, entries in AREAS.items():
        parts.append(f"## {area}\n\n")
        for code, entry in entries.items():
            told = first.setdefault(entry.signs, code)
            link = f"As for [`{told}`](#{told})."
            parts.append(_section(code, entry, entry.signs if told == code or len(entry.signs) < len(link) else link))
    return "".join(parts)


def _section(code: str, entry: Entry, signs: str) -> str:
    items = [f"*{entry.severity}*: {sentence(entry.title)} {entry.consequence}", entry.story]
    if signs != "None.":
        items.append(f"**How to recognize it.** {signs}")
    items.append(f"**Remedy.** {entry.remedy}")
    return f"### {code}\n\n" + "".join(f"{_item(item)}\n" for item in items) + "\n"


def _item(text: str) -> str:
    """Lines of an item of a list, in which < and a star are what they are."""
    head, mark, rest = text.rpartition("** ") if text.startswith("**") else text.rpartition("*: ")
    rest = rest.replace("<", "&lt;").replace("*", "\\*")
    whole = f"* {head}{mark}{rest}"
    return textwrap.fill(whole, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def replaced(text: str) -> str:
    """A document with the findings as they are now. ValueError where it lacks the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"it lacks {BEGIN.strip()} or {END.strip()}")
    return f"{before}{begin}\n{findings()}{end}{after}"


def main(files: list[str]) -> int:
    if not files:
        sys.stdout.write(findings())
    for name in files:
        path = Path(name)
        path.write_text(replaced(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
