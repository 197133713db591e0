"""The repository agrees with itself: links, the chapter table, committed notebooks, the size of the code."""

import ast
import copy
import io
import re
import tokenize
import tomllib
from pathlib import Path

import nbformat
import pytest

import dev

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = dev.find_notebooks([])
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LIBRARY = sorted(path for path in (ROOT / "sora_lib").rglob("*") if path.suffix in {".py", ".js"})
TEACHING = sorted((ROOT / "teaching").rglob("*.py"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


# --- Pages


def test_every_chapter_is_in_the_table_and_the_other_way_round():
    assert CHAPTERS
    assert sorted(re.findall(r"^\| *\[[^]]+\]\(notebooks/(\w+)\.ipynb\)", README, re.MULTILINE)) == CHAPTERS


def test_minutes_seconds_and_memory_agree_everywhere():
    """The chapter table, each chapter's opening, the table of what was measured, and chapter 16's sums of these."""
    row = r"^\| \[[^]]+\]\(notebooks/(\w+)\.ipynb\) \|[^|]*\| (\d+) \| (\d+) \|"
    promised = {name: (int(read), int(run)) for name, read, run in re.findall(row, README, re.MULTILINE)}
    row = r"^\| (\d\d_\w+) \| (\d+) \| (\d+) \|"
    measured = {name: (int(run), int(memory)) for name, run, memory in re.findall(row, README, re.MULTILINE)}
    assert sorted(promised) == sorted(measured) == CHAPTERS
    for name, (read, run) in promised.items():
        opening = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells[0].source
        assert f"{read} minutes to read, about {run} seconds to run" in opening
        assert measured[name][0] <= run
    *others, last = CHAPTERS
    [cell] = [cell for cell in code_cells(ROOT / "notebooks" / f"{last}.ipynb") if cell.id == "hub-read"]
    memory = max(measured[name][1] for name in others)
    seconds, minutes = sum(measured[name][0] for name in others), sum(promised[name][0] for name in others)
    assert f"MOST_MEMORY = {memory} " in cell.source and f"MINUTES = {seconds}, {minutes} " in cell.source


def test_the_launch_links_agree_with_the_repositorys_address():
    assert ADDRESS.startswith("https://github.com/")
    start = "https://mybinder.org/v2/gh/" + ADDRESS.removeprefix("https://github.com/") + "/HEAD?urlpath=lab/tree/"
    links = re.findall(r"https://mybinder\.org/v2[^)\s]*", README)
    assert set(links) == {f"{start}notebooks/{name}.ipynb" for name in CHAPTERS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_pictures_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_binder_takes_its_pins_from_the_root():
    lines = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-r ../requirements.txt" in lines
    assert not [line for line in lines if "==" in line]
    assert (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()[-1] == "-e ."


# --- Notebooks


@each_notebook
def test_a_notebook_is_clean(path):
    notebook = nbformat.read(path, as_version=4)
    assert dev.clean(copy.deepcopy(notebook)) == notebook, f"run: python3 dev.py execute {path.stem}"
    assert path.read_bytes().endswith((b"}\n", b"}\r\n"))
    assert path.stat().st_size <= dev.FILE_MEGABYTES * 1e6


@each_notebook
def test_a_notebook_was_executed_in_order_without_errors(path):
    cells = [cell for cell in code_cells(path) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


@each_notebook
def test_cells_are_short(path):
    """25 lines at most; one cell, which defines a class, may be longer."""
    long = [cell.source for cell in code_cells(path) if len(cell.source.splitlines()) > 25]
    assert len(long) <= 1
    assert all(re.search(r"^class \w", source, re.MULTILINE) for source in long)


@pytest.mark.parametrize("name", [name for name in CHAPTERS if not name.startswith("00")])
def test_a_chapter_compares_outputs(name):
    cells = code_cells(ROOT / "notebooks" / f"{name}.ipynb")
    checked = [cell for cell in cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(checked) >= 3
    assert all(cell.outputs for cell in checked)


EXPLORABLE = re.compile(r"^(?:scrubber|live|Sketch|display)\(", re.MULTILINE)


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_explorable_has_a_still_beside_it(name):
    """For code hosts, paper and readers without a kernel: a picture at most three code cells before or after."""
    cells = code_cells(ROOT / "notebooks" / f"{name}.ipynb")
    moving = [i for i, cell in enumerate(cells) if EXPLORABLE.search(cell.source)]
    assert moving, "no explorable in this chapter"
    pictured = [any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in cells]
    alone = [cells[i].source for i in moving if not any(pictured[max(0, i - 3) : i + 4])]
    assert not alone


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_first_cell_shows_the_outcome(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert f"](pictures/{name}.png)" in notebook.cells[0].source
    assert (ROOT / "notebooks" / "pictures" / f"{name}.png").read_bytes() == dev.outcome(notebook)


# --- The library and the exercises' files


def test_teachers_and_tests_get_the_same_nbgrader():
    pin = re.search(r"nbgrader==[\d.]+", (ROOT / "requirements-teach.txt").read_text(encoding="utf-8"))[0]
    assert f'"{pin}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def code_lines(path):
    """Count lines of code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        return sum(bool(line.strip()) and not line.strip().startswith("//") for line in text.splitlines())
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_lines_of_code_are_counted_right(tmp_path):
    path = tmp_path / "it.py"
    path.write_text(
        '"""Doc\nstring."""\n\n# comment\nx = 1  # one\n\n\ndef f():\n    """Doc."""\n    return (\n        x\n    )\n'
    )
    assert code_lines(path) == 5


def test_the_library_stays_small():
    counts = {path.name: code_lines(path) for path in LIBRARY}
    assert sum(counts.values()) <= 2500, counts
    assert max(counts.values()) <= 250, counts


def test_no_file_of_teaching_is_long():
    counts = {path.name: code_lines(path) for path in TEACHING}
    assert counts and max(counts.values()) <= 250, counts
