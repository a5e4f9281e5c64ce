"""What several files of tests are run with; the ids are the words of the table."""

from __future__ import annotations

import pytest

from realnode.providers import MODES

each_mode = pytest.mark.parametrize("secrets_from", MODES, ids=[f"{mode} secrets".replace("-", " ") for mode in MODES])
