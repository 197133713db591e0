"""Other computers: their encodings, line ends and folders, no network, one core, little memory; restarted kernels."""

import argparse
import ast
import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import dev

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".*_cache", ".ipynb_checkpoints", "*.egg-info", "checkpoints", "html", "build"
)
DEV = "import sys, dev; dev.environment = lambda dev: sys.executable; dev.inside = lambda: True; sys.exit(dev.main({}))"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds a process to a size")


def run(*arguments, cwd=ROOT, **settings):
    """Run the environment's Python on the library and the dev.py of a folder; return what it prints."""
    env = os.environ | {"PYTHONPATH": str(cwd), **dev.ONE_THREAD, **settings}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout.decode(errors="replace")


def save(path, *sources):
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


# --- Encodings

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # what open() takes where no encoding is named
WESTERN = {"PYTHONIOENCODING": "cp1252"}  # what Windows prints to a file in western Europe


def unnamed(call):
    """Whether a call opens a file as text and leaves the encoding to the computer."""
    named = any(word.arg == "encoding" for word in call.keywords)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return not named and len(call.args) <= (name == "write_text")
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    binary = any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)
    return isinstance(call.func, ast.Name) and name == "open" and not named and not binary


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("open(p, 'rb')", False),
        ("open(p, mode='ab')", False),
        ("open('b')", True),
        ("open(p, encoding='utf-8')", False),
        ("p.read_text()", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text(t)", True),
        ("p.write_text(t, encoding='utf-8')", False),
        ("Image.open(p)", False),
    ],
)
def test_a_call_without_an_encoding_is_found(code, found):
    assert unnamed(ast.parse(code).body[0].value) == found


def test_every_text_file_is_opened_with_an_encoding():
    folders = ("sora_lib", "teaching", "training", "benchmarks")
    for path in [ROOT / "dev.py", *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))]:
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert [f"{path}:{call.lineno}" for call in calls if unnamed(call)] == []


@pytest.mark.skipif(not sys.prefix.isascii(), reason="PyTorch itself needs UTF-8 in a folder with such a name")
def test_weights_and_checks_load_where_text_is_ascii():
    """A tick that can't be printed is printed as its code."""
    code = "from sora_lib import checks, pretrained\nfor name in pretrained.pretrained_names():\n"
    code += "    print(type(pretrained.load_pretrained(name)))\nchecks.middle_variance(None); checks.middle_variance(7)"
    out = run("-c", code, **ASCII)
    assert "MiniSora" in out and "middle_variance: not yet" in out and "\\u2717 middle_variance" in out


def test_a_video_is_written_to_a_name_that_cannot_be_printed(tmp_path):
    picture = tmp_path / "семь.png"
    words = ["a red seven moving up", "--out", picture, "--steps", "2", "--frames", "1"]
    assert "\\u0441\\u0435" in run("-m", "sora_lib", *words, **WESTERN)
    assert picture.stat().st_size > 0


def test_dev_works_in_another_encoding(tmp_path):
    (tmp_path / "é").mkdir()
    assert run("dev.py", "--help", **ASCII).startswith("usage")
    path = save(tmp_path / "é" / "01_ж.ipynb", "print('é ✓ 课')\nimport sora_lib")
    out = run("-c", DEV.format(["execute", str(path)]), **WESTERN)
    assert "\\u0436: " in out and "changed" in out
    assert "é ✓ 课" in path.read_text(encoding="utf-8")


# --- Folders and line ends


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository in a folder with spaces and letters of three scripts, as git makes it on Windows: with CRLF."""
    folder = tmp_path_factory.mktemp("machines") / "учёба 课程 é"
    shutil.copytree(ROOT, folder, ignore=NOT_COPIED)
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".safetensors"):
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    return folder


def test_the_repository_agrees_with_itself_there(copy):
    """The tables, links and notebooks, by the copy's own tests."""
    out = run("-m", "pytest", "-q", "-p", "no:nbval", "-p", "no:cacheprovider", "tests/test_repository.py", cwd=copy)
    assert " passed" in out and "skipped" not in out


def test_weights_and_checks_load_there(copy):
    code = "import sora_lib; from sora_lib import checks, pretrained; print(sora_lib.__file__)\n"
    code += "for name in pretrained.pretrained_names():\n    print(type(pretrained.load_pretrained(name)))\n"
    code += "checks.middle_variance(None)"
    out = run("-c", code, cwd=copy, PYTHONIOENCODING="utf-8")
    assert str(copy) in out and "MiniSora" in out and "not yet" in out


def test_notebooks_run_and_are_exported_there(copy):
    book = "notebooks/exercises/practice_02_forward_diffusion.ipynb"
    run("-c", f"import sys, dev; sys.exit(dev.run_notebooks([*dev.NBVAL, {book!r}])['failed'])", cwd=copy)
    run("-c", DEV.format(["export", "02", "--to", "страницы é"]), cwd=copy)
    assert "<math" in (copy / "страницы é" / "02_forward_diffusion.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_checkout_has_the_same_bytes_on_windows(tmp_path):
    """There git would end each line with CR LF, which bash can't run; pictures and weights must stay as they are."""
    names = ["run", "start", "it.py", "it.ipynb", "it.json", "it.png", "it.safetensors", ".gitattributes"]
    contents = {name: b"text\r\nonly\r\n" if name.startswith(("it.png", "it.s")) else b"one\ntwo\n" for name in names}
    contents[".gitattributes"] = (ROOT / ".gitattributes").read_bytes()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for words in (["init", "-q"], ["add", "."], ["checkout-index", "-a", "--prefix=out/"]):
        subprocess.run(["git", "-c", "core.autocrlf=true", *words], cwd=tmp_path, check=True, capture_output=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == contents


# --- No network

SILENT = """
import sys

def no_network(event, args):
    if event in {events}:
        raise RuntimeError(f"the course must not use the network: {{event}}")

sys.addaudithook(no_network)
"""
EVENTS = ["socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"]
CONNECT, ANY = SILENT.format(events=EVENTS), SILENT.format(events=[*EVENTS, "socket.__new__"])


def test_the_library_opens_no_socket(tmp_path):
    code = ANY + "import sora_lib\nfrom sora_lib import __main__, datasets, pretrained, metrics\n"
    code += "for name in pretrained.pretrained_names():\n    print(type(pretrained.load_pretrained(name)))\n"
    code += f"datasets.digits()\nsys.argv[1:] = ['a red seven', '--steps', '2', '--out', {str(tmp_path / 'x.png')!r}]\n"
    assert "x.png" in run("-c", code + "sys.exit(__main__.main())")


@pytest.mark.parametrize(
    "code", ["import socket; socket.socket()", "import urllib.request as u; u.urlopen('http://a')"]
)
def test_a_planted_socket_is_noticed(code):
    with pytest.raises(AssertionError, match="must not use the network"):
        run("-c", ANY + code)


# --- Kernels: restarted, run twice, two at once


async def run_cells(path, times):
    """Run all cells `times` times in one kernel without a network, then each alone; return the last outputs.

    Alone, as after a restart, a cell may lack a name that an earlier one defines, and nothing else.
    """
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [new_code_cell(CONNECT), new_code_cell("%reset -f"), *cells]
    options = {"timeout": 120, "kernel_name": "python3", "resources": {"metadata": {"path": str(path.parent)}}}
    client = nbclient.NotebookClient(notebook, store_widget_state=False, **options)
    async with client.async_setup_kernel():
        await client.async_execute_cell(notebook.cells[0], 0)
        for _ in range(times):
            for index, cell in enumerate(cells, 2):
                await client.async_execute_cell(cell, index)
        printed = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
        for index, cell in enumerate(cells, 2):
            await client.async_execute_cell(notebook.cells[1], 1)
            try:
                await client.async_execute_cell(cell, index)
            except nbclient.exceptions.CellExecutionError as error:
                assert error.ename == "NameError", f"{cell.source}\n{error}"
    return printed


def test_two_kernels_at_once_each_run_twice_and_from_the_middle(copy):
    folder = copy / "notebooks" / "exercises"
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}

    async def both():
        names = ["practice_02_forward_diffusion", "practice_03_reverse_denoising"]
        return await asyncio.gather(*(run_cells(folder / f"{name}.ipynb", 2) for name in names))

    for printed in asyncio.run(both()):
        assert "not yet" in printed
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


# --- One core and little memory


@LINUX
def test_where_ci_is_set_a_notebook_gets_two_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "1")
    sources = [f"import numpy as np\nx = np.empty({size}, np.uint8)" for size in (500_000_000, 2_500_000_000)]
    path = save(tmp_path / "it.ipynb", *sources)
    assert dict(dev.run_notebooks(["-q", *dev.NBVAL, str(path)])) == {"passed": 1, "failed": 1, "skipped": 0}


@LINUX
def test_elsewhere_it_gets_what_there_is(monkeypatch):
    """PyTorch with libraries for graphics cards could need more."""
    import resource

    monkeypatch.setattr(dev, "run_pytest", lambda arguments: resource.getrlimit(resource.RLIMIT_DATA))
    monkeypatch.setenv("CI", "")
    assert dev.run_notebooks([]) == resource.getrlimit(resource.RLIMIT_DATA)


@LINUX
@pytest.mark.parametrize("threads", [None, "7"])
def test_limits_are_given_back(threads, monkeypatch):
    import resource

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)

    def now():
        return os.sched_getaffinity(0), os.environ.get("OMP_NUM_THREADS"), resource.getrlimit(resource.RLIMIT_DATA)

    before = now()
    with pytest.raises(KeyError), dev.one_core(), dev.memory_limit(1000):
        cores, threads, (soft, _) = now()
        raise KeyError
    assert (len(cores), threads, soft) == (1, "1", 10**9)
    assert now() == before


@LINUX
def test_a_kernel_gets_one_core_and_two_gigabytes(tmp_path):
    source = "import os, resource\nos.sched_getaffinity(0), os.environ['OMP_NUM_THREADS'], resource.getrlimit(2)[0]"
    with dev.one_core(), dev.memory_limit(dev.SMALL_MEGABYTES):
        notebook, error = dev.run_notebook(save(tmp_path / "it.ipynb", source))
    assert error is None
    cores, threads, size = ast.literal_eval(notebook.cells[0].outputs[0].data["text/plain"])
    assert (len(cores), threads, size) == (1, "1", 2 * 10**9)


@LINUX
@pytest.mark.parametrize(
    ("slower", "error", "verdict"), [(29, None, "ok"), (31, None, "over"), (1, "cell 1 failed", "failed")]
)
def test_a_small_computer_may_take_three_times_as_long(tmp_path, monkeypatch, capsys, slower, error, verdict):
    measured = iter([(10, 10**9, None), (slower, 10**9, error)])
    monkeypatch.setattr(dev, "measure", lambda path: next(measured))
    monkeypatch.setattr(dev, "probe", lambda: "")
    path = save(tmp_path / "01_it.ipynb")
    code = dev.budget(argparse.Namespace(notebooks=[str(path)], small=True))
    assert code == (verdict != "ok")
    assert f"| 01_it | 10 | 1000 | {slower} | 1000 | {slower / 10:.1f} | {verdict} |" in capsys.readouterr().out
