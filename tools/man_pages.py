"""Makes the manual pages of the commands from their parsers, and the list of commands in the program's own page.

    python3 tools/man_pages.py                  writes docs/man
    python3 tools/man_pages.py --check [DIR]    fails where a page is not what it would write

Understands what every command's epilog has: paragraphs, then "Examples:" with one command a line, its meaning behind
two blanks or more, then "Exit status:" as one sentence or as a list.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from crio_credential_provider import __version__
from crio_credential_provider.commands import SUMMARIES, module
from flags_table import replaced
from make_build import NAME
from make_venv import ROOT

_EXAMPLES = re.compile(r"^Examples?(?P<intro>[^\n:]*):\n(?P<lines>(?:  .*\n)+)", re.MULTILINE)
_EXIT = re.compile(r"^Exit status:(?P<text>.*)\Z", re.MULTILINE | re.DOTALL)


def page(command: str) -> str:
    """One command's page."""
    parser: argparse.ArgumentParser = module(command).parser()
    epilog = parser.epilog or ""
    examples, statuses = _EXAMPLES.search(epilog), _EXIT.search(epilog)
    if examples is None or statuses is None:
        raise ValueError(f"{command}: the epilog lacks Examples or Exit status")
    prose = f"{parser.description or ''}\n{epilog[: examples.start()]}"
    parts = (
        f'.\\" Made by tools/man_pages.py from the parser of {command}.\n',
        f'.TH {_escaped(f"{NAME}-{command}".upper())} 8 "" "{_escaped(NAME)} {__version__}" "CRI\\-O"\n',
        f".SH NAME\n{_escaped(f'{NAME}-{command}')} \\- {_escaped(SUMMARIES[command])}\n",
        f".SH SYNOPSIS\n{_synopsis(command, parser)}",
        f".SH DESCRIPTION\n{_paragraphs(prose)}",
        f".SH OPTIONS\n{_options(parser)}",
        f".SH EXIT STATUS\n{_statuses(statuses['text'])}",
        f".SH EXAMPLES\n{_examples(examples['intro'], examples['lines'])}",
        f".SH SEE ALSO\n{see_also(command)}",
    )
    return "".join(parts)


# -- roff -------------------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def _lines(text: str) -> str:
    """Running text, each sentence on a line of its own, which is how roff tells their ends."""
    words = re.sub(r"(?<=[.?]) (?=[A-Z])", "\n", " ".join(text.split()))
    return "".join(f"{_line(line)}\n" for line in words.split("\n"))


def _line(text: str) -> str:
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _paragraphs(text: str) -> str:
    return ".PP\n".join(_lines(part) for part in re.split(r"\n\s*\n", text.strip()))


def _synopsis(command: str, parser: argparse.ArgumentParser) -> str:
    """The command, then every flag in brackets, exclusive ones together."""
    lines = [f".B {_escaped(f'{NAME} {command}')}"]
    together: dict[int, list[argparse.Action]] = {}
    for group in parser._mutually_exclusive_groups:
        for action in group._group_actions:
            together[id(action)] = group._group_actions
    told: set[int] = set()
    for action in parser._actions:
        if id(action) in told or action.dest == "help":
            continue
        group_of_it = together.get(id(action), [action])
        told.update(map(id, group_of_it))
        text = " | ".join(_invocation(each, each.option_strings[:1]) for each in group_of_it)
        is_needed = not action.option_strings and action.nargs not in ("?", "*")
        lines.append(text if is_needed else f"[{text}]")
    # Neither stretched nor hyphenated: it is to be read as it is typed.
    return ".ad l\n.nh\n" + "".join(f"{line}\n" for line in lines) + ".ad b\n.hy\n"


def _invocation(action: argparse.Action, names: Iterable[str]) -> str:
    """A flag with what stands for its value, in the fonts of a manual page, within a line."""
    value = f"\\fI{_escaped(_value(action))}\\fR" if _value(action) else ""
    if not action.option_strings:
        return f"{value} ..." if action.nargs == "*" else value
    return ", ".join(f"\\fB{_escaped(name)}\\fR {value}".rstrip() for name in names)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _options(parser: argparse.ArgumentParser) -> str:
    """The groups of the parser's help, with its own two without a heading."""
    made = []
    for number, group in enumerate(parser._action_groups):
        if group._group_actions:
            heading = f".SS {_escaped((group.title or '').capitalize())}\n" if number > 1 else ""
            made.append(heading + "".join(_option(parser, action) for action in group._group_actions))
    return "".join(made)


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return f".TP\n{_invocation(action, action.option_strings)}\n{_lines(f'{_capital(text)}.')}"


def _statuses(text: str) -> str:
    """``0 done; 1 a fault.``, or lines that begin with the number."""
    found = re.findall(r"(?:^|;|\n)\s*(\d) +(.*?)(?=;\s*\d |\n\s*\d  |\Z)", text, re.DOTALL)
    if not found:
        raise ValueError("no exit status is told")
    return "".join(f".TP\n.B {number}\n{_lines(_sentence(what))}" for number, what in sorted(found))


def _sentence(text: str) -> str:
    return f"{_capital(text.strip().rstrip('.'))}."


def _examples(intro: str, lines: str) -> str:
    made: list[str] = []
    comment = intro.strip(" ,")
    for line in lines.splitlines():
        command, _, meaning = line.strip().partition("   ")
        meaning = meaning.strip() or comment
        text = f"{_lines(f'{_capital(meaning)}:')}.PP\n" if meaning else ""
        # Commands that follow each other without a word stand together.
        if made and not text and made[-1].startswith(".RS"):
            made[-1] = made[-1].removesuffix(_END) + f"{_line(command)}\n{_END}"
        else:
            made.append(f"{text}.RS\n.nf\n{_line(command)}\n{_END}")
        comment = ""
    return ".PP\n".join(made)


_END = ".fi\n.RE\n"


def _capital(text: str) -> str:
    """With a capital, unless it begins with a name."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].rstrip(",;").isalpha() else text


def see_also(command: str = "") -> str:
    """The program's page, those of the other commands, and CRI-O's; only the commands' for the program's own page."""
    names = [(f"{NAME}-{other}", 8) for other in SUMMARIES if other != command]
    if not command:
        return "".join(f".BR {_escaped(name)} ({section}),\n" for name, section in names)
    names = [(NAME, 8), *names, ("crio", 8), ("kubelet", 1), ("containers-registries.conf", 5)]
    return ".ad l\n.nh\n" + ",\n".join(f".BR {_escaped(name)} ({section})" for name, section in names) + "\n"


# -- files ------------------------------------------------------------------------------------------------------------


def commands() -> str:
    """The commands as the program's own page lists them."""
    return "".join(
        f".TP\n.B {_escaped(f'{NAME} {command}')}\n{_lines(_sentence(summary))}"
        f"See\n.BR {_escaped(f'{NAME}-{command}')} (8).\n"
        for command, summary in SUMMARIES.items()
    )


def pages(directory: Path) -> Iterator[tuple[Path, str]]:
    """Every page with its content. The program's own is there, and gets its lists."""
    for command in SUMMARIES:
        yield directory / f"{NAME}-{command}.8", page(command)
    own = directory / f"{NAME}.8"
    yield own, replaced(replaced(own.read_text(), commands(), "commands"), see_also(), "see also")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the manual pages.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a page is stale")
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "docs/man", help="default docs/man")
    options = parser.parse_args()
    stale = {path: text for path, text in pages(options.directory) if not path.exists() or path.read_text() != text}
    if options.check and stale:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"man_pages: stale: {names}\nhint: python3 tools/man_pages.py")
    for path, text in stale.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
