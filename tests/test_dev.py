"""dev.py: each error is one clear line, an environment counts only when complete, notebooks are saved clean."""

import argparse
import ast
import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import dev

DEV = Path(dev.__file__)


def run_dev(*arguments, dev_py=DEV, **env):
    command = [sys.executable, str(dev_py), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def one_line(stderr):
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1, stderr
    return stderr


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small repository of its own, which dev.py takes for its root."""
    (tmp_path / "notebooks" / "exercises").mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("one==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    return tmp_path


def save(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


# --- Errors


def test_the_file_parses_on_an_old_python():
    ast.parse(DEV.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 10), (3, 15), (4, 0)])
def test_a_python_that_is_too_old_or_too_new(version, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    assert dev.main(["lab"]) == 2
    error = one_line(capsys.readouterr().err)
    assert "Python 3.11 to 3.14 is needed" in error
    assert f"this is {version[0]}.{version[1]}" in error


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_a_python_that_works(version):
    assert dev.python_problem(version) is None


@pytest.mark.parametrize(
    ("platform", "word"),
    [
        (("Darwin", "x86_64", 64, ""), "Intel"),
        (("Linux", "x86_64", 64, ""), "musl"),
        (("Windows", "AMD64", 32, ""), "32-bit"),
        (("Linux", "armv7l", 32, "glibc 2.36"), "32-bit"),
    ],
)
def test_a_platform_without_a_wheel(platform, word, monkeypatch, capsys):
    monkeypatch.setattr(dev, "platform_problem", lambda *_, real=dev.platform_problem: real(*platform))
    assert dev.main(["lab"]) == 2
    assert word in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "platform",
    [
        ("Linux", "x86_64", 64, "glibc 2.36"),
        ("Linux", "aarch64", 64, "glibc 2.36"),
        ("Darwin", "arm64", 64, ""),
        ("Windows", "AMD64", 64, ""),
    ],
)
def test_a_platform_with_a_wheel(platform):
    assert dev.platform_problem(*platform) is None


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_no_venv_module(missing, root, monkeypatch, capsys):
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda name: None if name == missing else name)
    assert dev.main(["execute"]) == 2
    assert "sudo apt install python3-venv" in one_line(capsys.readouterr().err)


def test_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, error = run_dev("lab", "--port", str(port))
    assert (code, out) == (2, "")
    assert f"Port {port} is in use" in one_line(error)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lab", "--colour"], "--colour"),
        (["paint"], "paint"),
        ([], "lab | test | execute | budget | bench | export"),
        (["lab", "--port", "70000"], "70000"),
        (["lab", "--port", "many"], "many"),
        (["test", "tests/no_such_file.py"], "no_such_file.py"),
    ],
)
def test_wrong_arguments(arguments, words):
    code, out, error = run_dev(*arguments)
    assert (code, out) == (2, "")
    assert words in one_line(error)


@pytest.mark.parametrize("command", [[], ["lab"], ["test"], ["execute"], ["budget"], ["bench"], ["export"]])
def test_help(command):
    code, out, _ = run_dev(*command, "--help")
    assert code == 0
    assert out.startswith("usage: dev.py")


# --- The environment


def test_a_failed_installation_shows_pips_words_and_is_not_taken_as_complete(root):
    (root / "requirements.txt").write_text("no-such-package==1.2.3\n")
    shutil.copy(DEV, root)
    for _ in range(2):
        code, out, error = run_dev("execute", dev_py=root / "dev.py", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
        assert code == 2
        assert "Installing into .venv" in out
        assert error.startswith("error: Installation failed")
        assert "no-such-package==1.2.3" in error
        assert "Traceback" not in error
    assert not dev.installed(dev=False)


def test_what_is_installed_is_known_by_a_hash(root, monkeypatch):
    assert not dev.installed(False)
    dev.stamp_path(False).write_text(dev.stamp(False))
    assert dev.installed(False)
    assert not dev.installed(True)
    (root / "requirements.txt").write_text("one==2\n")
    assert not dev.installed(False)
    (root / "requirements.txt").write_text("one==1\n")
    assert dev.installed(False)
    monkeypatch.setattr(dev.platform, "python_version", lambda: "3.99.0")
    assert not dev.installed(False)


def test_a_broken_python_is_not_usable(tmp_path):
    assert not dev.usable(tmp_path / "python")
    assert dev.usable(sys.executable)


def test_two_starts_at_once_wait_for_each_other(root):
    code = f"import dev, pathlib; dev.ROOT = pathlib.Path({str(root)!r})\nwith dev.only_one(): print('in')"
    with dev.only_one():
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=DEV.parent)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=20)[0].strip() == b"in"


def test_the_cpu_index_is_asked_for_two_seconds_at_most():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert not dev.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.2)


@pytest.mark.parametrize("there", [True, False])
def test_the_cpu_index_is_used_where_it_answers(there, root, monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(dev, "run_quietly", lambda command, *_, **__: commands.append(command))
    monkeypatch.setattr(dev, "answers", lambda *_: there)
    monkeypatch.setattr(dev.platform, "system", lambda: "Linux")
    dev.install("python", dev=True)
    assert (dev.CPU_INDEX in commands[0]) == there
    assert ".[dev]" in commands[0]
    assert ("did not answer" in capsys.readouterr().out) != there


# --- lab


OPENED = r"token=|password|xsrf|allow_origin|allow_remote|allow_unauth|disable_check|trust|ip=(?!127\.0\.0\.1$)"


def assert_shut(server):
    """No setting makes the server less safe than its default, and without the token it answers nothing."""
    assert "--ip=127.0.0.1" in server.command
    words = [word for word in server.command if "root_dir" not in word]
    assert not [word for word in words if re.search(OPENED, word)]  # in `ps`, others could read a token
    assert ("--allow-root" in server.command) == (hasattr(os, "geteuid") and os.geteuid() == 0)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("/api/contents", "/api/kernels", "/api/status", "/lab/api/settings"):
        for headers, code in (({}, 403), ({"Origin": "http://example.org"}, 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                opener.open(urllib.request.Request(server.address + path, headers=headers), timeout=30)
            assert refused.value.code == code, path
            assert refused.value.headers["Access-Control-Allow-Origin"] is None
    for path in ("/lab", "/files/" + dev.FIRST_CHAPTER):
        assert opener.open(server.address + path, timeout=30).url.startswith(server.address + "/login")


def test_the_check_runs_a_cell_of_the_first_chapter(root, capsys):
    chapter = save(root / dev.FIRST_CHAPTER, new_code_cell("1 + 1"))
    with dev.Server(dev.choose_port(None), root) as server:
        dev.check_lab(server)
        assert "Checked" in capsys.readouterr().out
        assert_shut(server)
        save(chapter, new_code_cell("1 / 0"))
        with pytest.raises(dev.Problem, match="ZeroDivisionError"):
            dev.check_lab(server)
        chapter.unlink()
        with pytest.raises(dev.Problem, match="does not answer"):
            dev.check_lab(server)
    assert server.process.poll() is not None


@pytest.mark.skipif(dev.WINDOWS, reason="Windows has no SIGTERM")
def test_lab_prints_one_address_and_leaves_no_process(root):
    save(root / dev.FIRST_CHAPTER, new_code_cell("1 + 1"))
    code = f"import argparse, dev, pathlib; dev.VENV = pathlib.Path({str(dev.VENV)!r})\n"
    code += "dev.end_cleanly()\ndev.lab(argparse.Namespace(port=None, check=False, no_browser=True))"
    lab = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=DEV.parent)
    first = lab.stdout.readline()
    started = psutil.Process(lab.pid).children(recursive=True)
    lab.send_signal(signal.SIGTERM)
    rest = lab.communicate(timeout=30)[0]
    assert first.startswith("Ready: http://127.0.0.1:")
    assert "Ready" not in rest
    assert lab.returncode == 0
    assert started
    assert not psutil.wait_procs(started, timeout=10)[1]


# --- test


@pytest.fixture
def stage(tmp_path):
    """Run one stage on a test file with this text."""

    def run(text):
        (tmp_path / "test_it.py").write_text(text)
        return dict(dev.run_pytest(["-q", "-p", "no:nbval", str(tmp_path)]))

    return run


def test_a_stage_counts(stage):
    text = "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip\ndef test_c(): pass\n"
    assert stage(text) == {"passed": 1, "failed": 1, "skipped": 1}


def test_a_stage_in_which_nothing_ran_fails(stage):
    assert stage("")["failed"] == 1


@pytest.mark.parametrize(("ci", "failed"), [("1", 1), ("", 0)])
def test_a_stage_in_which_all_was_skipped_fails_where_ci_is_set(stage, monkeypatch, ci, failed):
    monkeypatch.setenv("CI", ci)
    assert stage("import pytest\n@pytest.mark.skip\ndef test_c(): pass\n") == {
        "passed": 0,
        "failed": failed,
        "skipped": 1,
    }


def test_a_stage_that_cannot_be_collected_fails(stage):
    assert stage("import no_such_module")["failed"] == 1


def test_the_summary_is_one_plain_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dev, "run_ruff", lambda _: collections.Counter(passed=1))
    monkeypatch.setattr(dev, "run_pytest", lambda *_: collections.Counter(passed=3, failed=1))
    assert dev.test(argparse.Namespace(paths=[str(tmp_path)], fast=False)) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "5 passed, 1 failed, 0 skipped"


def test_without_a_browser_its_tests_are_skipped_but_never_in_ci(monkeypatch, capsys):
    monkeypatch.setattr(dev, "find_browser", lambda: None)
    monkeypatch.setattr(dev, "run_pytest", lambda *_: "ran")
    monkeypatch.setenv("CI", "")
    assert dev.run_browser_tests([]) == {"skipped": 1}
    assert "no Chromium" in capsys.readouterr().out
    monkeypatch.setenv("CI", "1")
    assert dev.run_browser_tests([]) == "ran"


@pytest.mark.parametrize(("stored", "failed"), [("42\n", 0), ("43\n", 1)])
def test_a_planted_wrong_output_fails(tmp_path, stored, failed):
    output = new_output("stream", name="stdout", text=stored)
    path = save(
        tmp_path / "it.ipynb",
        new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(6 * 7)", outputs=[output], execution_count=1),
    )
    assert dict(dev.run_pytest(["-q", *dev.NBVAL, str(path)])) == {"passed": 1 - failed, "failed": failed, "skipped": 0}


# --- execute and budget


@pytest.fixture
def course(root):
    for name in ("01_the_article", "02_forward_diffusion", "exercises/02_forward_diffusion_exercises"):
        save(root / f"notebooks/{name}.ipynb")
    return root


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        ([], ["01_the_article", "02_forward_diffusion", "02_forward_diffusion_exercises"]),
        (["01"], ["01_the_article"]),
        (["01_the_article"], ["01_the_article"]),
        (["01_the_article.ipynb"], ["01_the_article"]),
        (["02", "01"], ["02_forward_diffusion", "02_forward_diffusion_exercises", "01_the_article"]),
    ],
)
def test_names_of_notebooks(course, names, stems):
    assert [path.stem for path in dev.find_notebooks(names)] == stems


def test_a_path_of_a_notebook(course, monkeypatch):
    monkeypatch.chdir(course / "notebooks")
    assert dev.find_notebooks(["01_the_article.ipynb"]) == [course / "notebooks" / "01_the_article.ipynb"]


@pytest.mark.parametrize("name", ["1_the_artikle", "notebooks/1_the_artikle.ipynb"])
def test_an_unknown_notebook_names_the_nearest(course, name, capsys):
    assert dev.main(["execute", name]) == 2
    error = one_line(capsys.readouterr().err)
    assert name in error
    assert "01_the_article" in error


def test_clean_takes_out_what_differs_between_runs():
    def stream(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    widget = new_output("display_data", data={dev.WIDGET: {"model_id": "a1"}, "text/plain": "IntSlider()"})
    picture = new_output("display_data", data={"image/png": "AAAA"})
    dirty = new_notebook(
        cells=[
            new_code_cell(
                "a",
                id="first",
                metadata={"execution": {"iopub.status.busy": "2026-01-01"}, "tags": ["keep"], "nbgrader": {"grade": 1}},
                outputs=[stream("one\n"), stream("50%", "stderr"), stream("two\n"), widget, picture, stream("three\n")],
            ),
            new_code_cell("b", id="second", outputs=[stream("10%\r20%\r"), stream("done\r\n")]),
        ],
        metadata={
            "widgets": {"state": {}},
            "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
            "language_info": {"name": "python", "version": "3.11.7"},
        },
    )
    expected = new_notebook(
        cells=[
            new_code_cell(
                "a",
                id="first",
                metadata={"tags": ["keep"], "nbgrader": {"grade": 1}},
                outputs=[stream("one\ntwo\n"), picture, stream("three\n")],
            ),
            new_code_cell("b", id="second", outputs=[stream("done\n")]),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": dev.LANGUAGE,
        },
    )
    assert dev.clean(dirty) == expected


def test_executing_twice_changes_nothing(root, capsys):
    source = "import matplotlib.pyplot as plt\nprint('a', flush=True)\nprint('b')\nplt.plot([1, 2]);"
    path = save(root / "notebooks" / "01_it.ipynb", new_code_cell(source))
    assert dev.execute(argparse.Namespace(notebooks=[])) == 0
    first = path.read_bytes()
    assert b"image/png" in first
    assert first.endswith(b"}\n")
    assert dev.execute(argparse.Namespace(notebooks=["01"])) == 0
    assert path.read_bytes() == first
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["changed", "unchanged"]
    assert [item.name for item in path.parent.iterdir() if item.is_file()] == ["01_it.ipynb"]


def test_a_failing_notebook_is_left_as_it_was(root, capsys):
    path = save(root / "notebooks" / "01_it.ipynb", new_code_cell("print(1)"), new_code_cell("x = 1 / 0"))
    before = path.read_bytes()
    assert dev.execute(argparse.Namespace(notebooks=[])) == 1
    assert path.read_bytes() == before
    out = capsys.readouterr().out
    assert "cell 2 failed" in out
    assert "x = 1 / 0" in out
    assert "ZeroDivisionError" in out


def test_budget_prints_a_table_and_fails_when_over(root, capsys, monkeypatch):
    path = save(root / "notebooks" / "01_it.ipynb", new_code_cell("block = bytearray(300_000_000)"))
    before = path.read_bytes()
    assert dev.budget(argparse.Namespace(notebooks=[], small=False)) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("| 01_it"))
    assert 300 < int(row.split("|")[3]) < 700
    assert row.endswith("| ok |")
    assert "GFLOP/s" in out
    monkeypatch.setattr(dev, "MEGABYTES", 200)
    assert dev.budget(argparse.Namespace(notebooks=[], small=False)) == 1
    assert path.read_bytes() == before


# --- bench


@pytest.fixture
def benchmarks(root):
    (root / "benchmarks").mkdir()
    (root / dev.PEERS).write_text("# none")
    for name, code in (("good", 0), ("bad", 3), ("_shared", 9)):
        text = f"import pathlib, sys\npathlib.Path('{name}.ran').write_text(str(sys.argv[1:]))\nsys.exit({code})"
        (root / "benchmarks" / f"{name}.py").write_text(text)
    return root


@pytest.mark.parametrize(("names", "code", "ran"), [([], 1, {"good", "bad"}), (["good"], 0, {"good"})])
def test_bench_runs_the_named_files_or_all_and_fails_where_one_does(benchmarks, names, code, ran):
    assert dev.bench(argparse.Namespace(benchmarks=names, save=False)) == code
    assert {path.stem for path in benchmarks.glob("*.ran")} == ran
    assert (benchmarks / "good.ran").read_text() == "[]"


def test_bench_hands_on_that_it_should_save(benchmarks):
    dev.bench(argparse.Namespace(benchmarks=["good"], save=True))
    assert (benchmarks / "good.ran").read_text() == "['--save']"


def test_bench_says_what_it_cannot_install(benchmarks):
    (benchmarks / dev.PEERS).write_text("no-such-package-anywhere==1.0\n")
    with pytest.raises(dev.Problem, match="Installing what is compared with failed"):
        dev.bench(argparse.Namespace(benchmarks=["good"], save=False))
    assert not (benchmarks / "good.ran").exists()


def test_an_unknown_benchmark_names_those_there_are(benchmarks, capsys):
    assert dev.main(["bench", "goood"]) == 2
    assert "'goood'; there are: bad, good" in one_line(capsys.readouterr().err)
