"""From the exercise sources in `teaching/source` to what students get, and to an nbgrader course for a class.

`python3 dev.py teach` writes the student versions to `notebooks/exercises`, `python3 dev.py teach FOLDER` a course.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.apps import NbGraderAPI
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
SOURCES, RELEASED = ROOT / "teaching" / "source", ROOT / "notebooks" / "exercises"
STUB = {"python": "..."}  # stands where a solution stood: the unsolved notebook still runs
SECONDS = 60  # for one cell, while grading

CONFIG = '''"""How nbgrader works in this folder. See teaching/README.md of the course."""

import atexit
import os
import shutil
import subprocess
import tempfile

c = get_config()
c.CourseDirectory.course_id = "sora"
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))
c.ClearSolutions.code_stub = {stub}
c.Execute.timeout = {seconds}  # for one cell
c.FileNameCollectorPlugin.named_regexp = r"(?:.*/)?(?P<student_id>[^/_]+)_(?P<file_id>[^/]+)"

try:
    shut_in = subprocess.run(["bwrap", "--ro-bind", "/", "/", "true"], capture_output=True).returncode == 0
except OSError:
    shut_in = False
if shut_in:  # by bubblewrap: the kernels that grade see neither this folder nor the network
    if "SORA_GRADING" not in os.environ:  # this file is read more than once
        os.environ["SORA_GRADING"] = tempfile.mkdtemp(prefix="grading")  # where kernels and nbgrader meet
        atexit.register(shutil.rmtree, os.environ["SORA_GRADING"], ignore_errors=True)
    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["SORA_GRADING"]
    os.environ["JUPYTER_PATH"] = os.path.join(c.CourseDirectory.root, "jupyter")
    c.KernelManager.transport = "ipc"
    c.KernelManager.connection_file = os.path.join(os.environ["SORA_GRADING"], "kernel.json")
else:
    print("Students' code is not shut in: it runs as you, with all your rights. See teaching/README.md.")
'''


class Problem(Exception):
    """Something the teacher can act on."""


def sources() -> list[Path]:
    return sorted(SOURCES.glob("*/*.ipynb"))


def student_version(source: Path) -> NotebookNode:
    """The notebook without solutions, hidden tests and outputs."""
    notebook = nbformat.read(source, as_version=4)
    config = Config(ClearSolutions={"code_stub": STUB})
    for step in (ClearSolutions(config=config), ClearHiddenTests(config=config)):
        notebook, _ = step.preprocess(notebook, {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def release() -> None:
    """Write the student version of every source to `notebooks/exercises`."""
    RELEASED.mkdir(exist_ok=True)
    for source in sources():
        nbformat.write(student_version(source), RELEASED / source.name)
        print(RELEASED / source.name)


def shut_in(folder: Path) -> dict:
    """A kernel in bubblewrap: no network, nothing to write to, no course, no sources and no home folder."""
    words = ["exec bwrap --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp"]
    words += [shlex.join(["--tmpfs", str(Path.home())])]
    words += [shlex.join(["--ro-bind", path, path]) for path in dict.fromkeys([sys.base_prefix, sys.prefix, str(ROOT)])]
    words += [shlex.join(["--tmpfs", str(path)]) for path in (ROOT / "teaching" / "source", folder)]
    words += ['--bind "$SORA_GRADING" "$SORA_GRADING" --tmpfs "$PWD" --chdir "$PWD"']
    words += ['--clearenv --setenv HOME /tmp --setenv PATH "$PATH" --setenv LANG C.UTF-8']
    words += ["--unshare-net --unshare-pid --unshare-ipc --die-with-parent"]
    command = " ".join([*words, shlex.quote(sys.executable), '-m ipykernel_launcher -f "$0"'])
    argv = ["/bin/sh", "-c", command, "{connection_file}"]
    return {"display_name": "Python 3 (ipykernel)", "language": "python", "interrupt_mode": "message", "argv": argv}


def make_course(folder: Path) -> None:
    """An nbgrader course in a new or empty folder: sources, released notebooks, and the settings for grading."""
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Problem(f"{folder} is not empty; name a new folder, so that nothing in it is lost")
    if folder.is_relative_to(ROOT):
        raise Problem(f"{folder} lies in the repository; choose one outside of it, for students' work is private")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(SOURCES, folder / "source")
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(shut_in(folder), indent=1), encoding="utf-8")
    config = CONFIG.format(stub=STUB, seconds=SECONDS)
    (folder / "nbgrader_config.py").write_text(config, encoding="utf-8")
    programs = str(Path(sys.executable).parent)  # nbgrader calls one of them, alembic
    os.environ["PATH"] = os.pathsep.join([programs, os.environ["PATH"]])
    api = NbGraderAPI(config=Config(CourseDirectory={"root": str(folder)}, ClearSolutions={"code_stub": STUB}))
    for source in sources():
        if not api.generate_assignment(source.stem)["success"]:
            raise Problem(f"nbgrader did not release {source.stem}; `nbgrader generate_assignment` tells why")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where to make an nbgrader course (default: none)")
    args = parser.parse_args()
    if args.folder is None:
        release()
        return 0
    try:
        make_course(args.folder)
    except Problem as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"A course of {len(sources())} assignments is ready in {args.folder}; teaching/README.md says how to go on.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
