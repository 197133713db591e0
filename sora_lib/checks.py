"""Instant checks for the exercises: `check.NAME(answer)` prints a tick, or a hint that fits the mistake.

Each check is a function in `teaching/checks`, beside the solutions. The files there are loaded at the first use.
"""

import difflib
import functools
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "teaching" / "checks"
Check = Callable[[object], None]


@functools.cache
def _load(folder: Path) -> dict[str, Check]:
    """The public functions that the files of the folder define, by name. Raises FileNotFoundError if it has none."""
    checks = {}
    for path in sorted(folder.rglob("[a-z]*.py")):
        spec = importlib.util.spec_from_file_location(f"teaching.checks.{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        functions = inspect.getmembers(module, inspect.isfunction)
        checks |= {name: f for name, f in functions if name[0] != "_" and f.__module__ == module.__name__}
    if not checks:
        where = f"they belong in {folder}, beside a sora_lib that is installed in place"
        raise FileNotFoundError(f"the checks of the exercises are missing; {where}")
    return checks


def __getattr__(name: str) -> Check:
    checks = {} if name.startswith("_") else _load(FOLDER)  # Python and IPython ask for names with underscores
    if name in checks:
        return checks[name]
    near = difflib.get_close_matches(name, checks)
    offer = f"near names: {', '.join(map(repr, near))}" if near else f"there are {', '.join(sorted(checks))}"
    raise AttributeError(f"no check is named {name!r}; {offer}")


def __dir__() -> list[str]:
    return sorted(_load(FOLDER))
