"""Commands as a person types them, and what they print."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml

from node import COMMAND, ENVIRONMENT, PROGRAM


class Done(NamedTuple):
    """One run of a command."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def flat(self) -> str:
        """The text without its line breaks, which depend on the width."""
        return re.sub(r"\s+", " ", self.out)

    @property
    def report(self) -> Any:
        """What ``--output json`` gave."""
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        return list(yaml.safe_load_all(self.out))

    @property
    def outcomes(self) -> dict[str, str]:
        return {source["name"]: source["outcome"] for source in self.report["sources"]}

    def source(self, name: str) -> Any:
        return next(source for source in self.report["sources"] if source["name"] == name)


def typed(*words: str, env: Mapping[str, str] | None = None, **options: Any) -> Done:
    """A process."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    ran = subprocess.run(
        [*COMMAND, *words], env={**ENVIRONMENT, **(env or {})}, text=True, check=False, timeout=60, cwd="/", **given
    )
    return Done(ran.returncode, ran.stdout, ran.stderr)


def here(run: Callable[[], int]) -> Done:
    """A command's function, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run()
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def command(name: str, run: Callable[[list[str]], int], arguments: list[str]) -> Done:
    """As $PROGRAM, a form that ships; else in this process, which is quicker."""
    if not PROGRAM:
        return here(lambda: run(arguments))
    ran = subprocess.run([PROGRAM, name, *arguments], capture_output=True, text=True, check=False)
    return Done(ran.returncode, ran.stdout, ran.stderr)
