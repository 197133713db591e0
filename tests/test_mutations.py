"""Every bug that `mutations.py` plants still fits the code, and the tests meant to catch it exist."""

import pytest
from mutations import MUTATIONS, ROOT


@pytest.mark.parametrize(("what", "file", "old", "new", "tests"), MUTATIONS, ids=[m[0] for m in MUTATIONS])
def test_a_planted_bug_fits_the_code(what, file, old, new, tests):
    code = (ROOT / "sora_lib" / f"{file}.py").read_text(encoding="utf-8")
    assert old in code and old != new
    compile(code.replace(old, new, 1), file, "exec")
    assert all((ROOT / "tests" / f"test_{test}.py").is_file() for test in tests.split())
