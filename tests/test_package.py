"""The package: its public names, its files' order, and what importing it must not cost."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import sora_lib

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "sora_lib").glob("*.py"))


def python(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_public_name_is_there_and_documented():
    assert sora_lib.__all__ == sorted(set(sora_lib.__all__), key=sora_lib.__all__.index)
    for name in sora_lib.__all__:
        assert getattr(sora_lib, name).__doc__, name
    assert "docs" not in sora_lib.__all__


def test_importing_it_loads_no_slow_library():
    """sklearn, matplotlib and IPython together take longer than torch; they wait until they are needed."""
    code = "import sys, json, sora_lib; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    loaded = set(json.loads(python(code)))
    assert not loaded & {"sklearn", "matplotlib", "IPython", "ipywidgets", "PIL", "scipy", "pandas"}


def test_each_file_can_be_imported_first():
    names = [f"sora_lib.{path.stem}" for path in FILES if path.stem != "__init__"]
    # one process: forget the package between imports, so that each file is the first once
    python(
        f"import sys, importlib, torch\nfor name in {names!r}:\n"
        "    [sys.modules.pop(m) for m in list(sys.modules) if m.split('.')[0] == 'sora_lib']\n"
        "    importlib.import_module(name)"
    )


def test_data_flows_one_way():
    """Imports between the files make no circle, and the ground knows nothing of what stands on it."""
    needs = {}
    for path in FILES:
        nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
        needs[path.stem] = {n.module for n in nodes if n.level == 1}
    del needs["__init__"]

    def reach(name):
        return {name}.union(*(reach(n) for n in needs[name]))  # a circle would recurse without end

    for name in needs:
        assert all(name not in reach(other) for other in needs[name])
    assert needs["validate"] == needs["article"] == needs["marking"] == set()
    for ground in ("schedules", "metrics", "plotting"):
        assert needs[ground] == {"validate"}
    assert "training" not in reach("samplers") | reach("oracle") | reach("denoisers")
