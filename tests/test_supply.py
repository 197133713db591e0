"""What the course is made of: every package is pinned, has a reason and is used; workflows may do little."""

import ast
import functools
import importlib.metadata
import itertools
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
EXTRAS = tomllib.loads(PROJECT)["project"]["optional-dependencies"]
HELD_BACK = {"jsonschema"}  # not used by the course, but by what it uses
PROGRAMS = {  # packages that are started, not imported: the words in dev.py or teaching/course.py that do so
    "jupyterlab": '"-m", "jupyterlab"',
    "ipykernel": "-m ipykernel_launcher",
    "nbval": "--nbval-lax",
    "ruff": '"-m", "ruff"',
    "pytest-xdist": '"--dist"',
}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


REQUIREMENTS = [path for folder in (ROOT, ROOT / "benchmarks") for path in sorted(folder.glob("requirements*.txt"))]


def lines_of(path):
    lines = path.read_text(encoding="ascii").splitlines()  # pip reads it in the computer's own encoding
    return [line for line in lines if line and line[0] not in "#-"]


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


READERS = {name_of(line) for line in lines_of(ROOT / "requirements.txt")}
TEACHERS = {name_of(line) for line in lines_of(ROOT / "requirements-teach.txt")}
EVERY = [*itertools.chain(*map(lines_of, REQUIREMENTS)), *itertools.chain(*EXTRAS.values())]
ALL = set(map(name_of, EVERY))


# --- Pins


PIN = r"[\w-]+==\d+(\.\d+)+(\.post\d+)?"


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_each_requirement_is_pinned_and_says_why(path):
    assert [line for line in lines_of(path) if not re.fullmatch(PIN + r" +# \w.+", line)] == []


def test_each_requirement_of_the_project_file_is_pinned_and_says_why():
    content = tomllib.loads(PROJECT)
    assert "dependencies" not in content["project"]  # they are in requirements.txt alone
    for requirement in [*itertools.chain(*EXTRAS.values()), *content["build-system"]["requires"]]:
        assert re.fullmatch(PIN, requirement)
        assert re.search(rf'"{re.escape(requirement)}"[],]*  # \w', PROJECT), (
            f"say in a comment what {requirement} does"
        )


def test_a_package_has_one_version():
    pins = {line.split("#")[0].strip() for line in EVERY}
    assert len(pins) == len({name_of(pin) for pin in pins}), sorted(pins)


def test_teachers_packages_are_among_the_tests():
    assert not TEACHERS - {name_of(line) for line in EXTRAS["dev"]}


# --- Imports


@functools.cache
def tree(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        text = re.sub(r"^( *)[%!].*$", r"\1pass", text, flags=re.MULTILINE)
    return ast.parse(text)


def imports(path):
    """The names of the modules that a file imports, without what comes after the first dot."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


FOLDERS = ("sora_lib", "notebooks", "training", "benchmarks", "teaching", "tests")
FILES = [ROOT / "dev.py"]
FILES += [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*")) if p.suffix in (".py", ".ipynb")]
FILES = [path for path in FILES if ".ipynb_checkpoints" not in path.parts]
OWN = {"sora_lib"} | {path.stem for path in FILES if path.suffix == ".py" and "sora_lib" not in path.parts}
PACKAGES = importlib.metadata.packages_distributions()


@functools.cache
def packages(path):
    """The packages from elsewhere that a file imports, by the names under which they are installed."""
    foreign = imports(path) - OWN - set(sys.stdlib_module_names)
    return {name_of(PACKAGES[name][0]) if name in PACKAGES else name for name in foreign}


def test_each_import_is_a_direct_dependency():
    """Readers have requirements.txt alone."""
    for path in FILES:
        readers = path.relative_to(ROOT).parts[0] in ("sora_lib", "notebooks", "training")
        missing = packages(path) - (READERS if readers else ALL)
        assert not missing, f"{path} imports what no file of requirements pins for it"


def test_each_direct_dependency_is_used():
    """By an import, by being started, or by another one, as its reason then says: "X imports it"."""
    starts = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("dev.py", "teaching/course.py"))
    used = {name for name, words in PROGRAMS.items() if words in starts}.union(HELD_BACK, *map(packages, FILES))
    importers = {name_of(line): re.search(r"(\w+) imports it$", line) for line in EVERY}
    used |= {name for name, importer in importers.items() if importer and name_of(importer[1]) in used}
    assert sorted(ALL - used) == []


UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_no_file_loads_what_could_run_code():
    """Pickles can: so no module that reads them, no torch.load, no numpy.load that allows them."""
    for path in FILES:
        if path.parent.name == "tests":  # they make such files, to see that these are refused
            continue
        assert not imports(path) & UNSAFE, path
        for call in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
            unsafe = re.fullmatch(r"torch\.load|torch\.hub\.load\w*", ast.unparse(call.func))
            assert not unsafe and not any(word.arg == "allow_pickle" for word in call.keywords), path


# --- Workflows


def workflow(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content[True], content["jobs"].values()  # YAML 1.1 takes the key `on` for True


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_comes_to_an_end(path):
    on, jobs = workflow(path)
    assert jobs and "pull_request_target" not in on
    assert "secrets." not in path.read_text(encoding="utf-8")
    for job in jobs:
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert re.fullmatch(r"actions/[\w-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", step.get("uses", "actions/own@v1")), step
            assert "checkout" not in step.get("uses", "") or step["with"]["persist-credentials"] is False


def test_known_flaws_are_looked_for_every_month():
    on, (job,) = workflow(ROOT / ".github" / "workflows" / "audit.yml")
    minute, hour, day, month, weekday = on["schedule"][0]["cron"].split()
    assert (month, weekday) == ("*", "*") and day.isdigit() and minute.isdigit() and hour.isdigit()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert re.search(r"pip install pip-audit==\d+\.\d+\.\d+$", commands, re.MULTILINE)
    assert "pip_audit --strict" in commands
    assert all(path.name in commands for path in REQUIREMENTS if path.stem != "requirements-teach")  # those are in dev
    assert ".[dev]" in commands


def test_new_versions_are_proposed_every_month():
    content = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    assert content["version"] == 2
    updates = {update["package-ecosystem"]: update for update in content["updates"]}
    assert set(updates) == {"pip", "github-actions"}
    assert {(update["directory"], update["schedule"]["interval"]) for update in updates.values()} == {("/", "monthly")}
    assert {ignored["dependency-name"] for ignored in updates["pip"]["ignore"]} == HELD_BACK
