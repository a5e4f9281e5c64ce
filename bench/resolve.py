#!/usr/bin/env python3
"""Times reading registries.conf and finding an image's pull sources, for few tables and for many.

    python bench/resolve.py [--tables 50,1000] [--mirrors 5] [--rounds 15]

``parsed`` reads the TOML, ``kept`` takes the form that an earlier run kept. Wall time in ms, best of the rounds; the
last line is the ratio of the last number of tables to the first. Exits 1 if it is above the ratio of the numbers.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from crio_credential_provider.images import reference
from crio_credential_provider.platform.parsecache import ParseCache
from crio_credential_provider.pull import decision
from crio_credential_provider.runtimes.crio import registries

# Seconds from which a file counts as settled, and a bit.
SETTLED = 2.1


def conf(tables: int, mirrors: int) -> str:
    return "".join(
        f'[[registry]]\nprefix = "r{table:04}.example/team"\nlocation = "r{table:04}.example"\n'
        + "".join(f'[[registry.mirror]]\nlocation = "m{mirror}.corp:5000/{table:04}"\n' for mirror in range(mirrors))
        for table in range(tables)
    )


def best(rounds: int, function: Callable[[], object]) -> float:
    """Milliseconds of the fastest round; without garbage collection, as in a run of the plugin."""
    times = []
    gc.disable()
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
        gc.collect()
    gc.enable()
    return min(times) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tables", default="50,1000")
    parser.add_argument("--mirrors", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sizes = [int(number) for number in given.tables.split(",")]

    with tempfile.TemporaryDirectory() as scratch:
        files = {size: Path(scratch, f"{size}.conf") for size in sizes}
        for size, file in files.items():
            file.write_text(conf(size, given.mirrors))
        time.sleep(SETTLED)

        cache = ParseCache(str(Path(scratch, "cache")), "registries")
        rows = []
        for size, file in files.items():
            search = registries.SearchPath(str(file), True, ())
            image = reference.parse(f"r{size - 1:04}.example/team/app")

            def run(
                kept: ParseCache | None, search: registries.SearchPath = search, image: reference.Reference = image
            ) -> None:
                found, _ = decision.find_sources(registries.load(search, kept), image)
                assert len(found) == given.mirrors + 1

            run(cache)
            assert cache.load((search.main,)) is not None
            rows.append([best(given.rounds, lambda: run(None)), best(given.rounds, lambda: run(cache))])

    print(f"{'tables':>8} {'mirrors':>8} {'parsed':>10} {'kept':>10}")
    for size, row in zip(sizes, rows, strict=True):
        print(f"{size:>8} {given.mirrors:>8}" + "".join(f" {milliseconds:>7.2f} ms" for milliseconds in row))
    ratios = [last / first for first, last in zip(rows[0], rows[-1], strict=True)]
    allowed = sizes[-1] / sizes[0]
    print(f"{'ratio':>17}" + "".join(f" {ratio:>8.1f} x" for ratio in ratios) + f"   (linear: {allowed:.0f} x)")
    return 0 if max(ratios) <= allowed else 1


if __name__ == "__main__":
    sys.exit(main())
