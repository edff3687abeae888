"""Both type checkers accept every right call and refuse every wrong one, strictly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

Errors = set[tuple[str, int]]  # name of the file, number of the line


def test_mypy_refuses_the_wrong_calls_and_no_others(tmp_path: Path) -> None:
    wrong, marked = wrong_calls(tmp_path)

    refused = mypy(HERE / "right_calls.py", wrong)

    assert refused == marked


def test_pyright_refuses_the_wrong_calls_and_no_others(tmp_path: Path) -> None:
    wrong, marked = wrong_calls(tmp_path)

    refused = pyright(HERE / "right_calls.py", wrong)

    assert refused == marked


def wrong_calls(folder: Path) -> tuple[Path, Errors]:
    """The wrong calls without the line that hides them from the checkers, and which lines are marked."""
    lines = (HERE / "wrong_calls.py").read_text().splitlines()
    lines[0] = ""
    file = folder / "wrong_calls.py"
    file.write_text("\n".join(lines) + "\n")
    return file, {(file.name, number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def mypy(*files: Path) -> Errors:
    output = run("mypy", "--strict", "--output", "json", *files)
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    names = {file.name for file in files}
    return {
        (Path(error["file"]).name, error["line"])
        for error in found
        if error["severity"] == "error" and Path(error["file"]).name in names
    }


def pyright(*files: Path) -> Errors:
    found = json.loads(run("pyright", "--pythonpath", sys.executable, "--outputjson", *files))
    return {
        (Path(error["file"]).name, error["range"]["start"]["line"] + 1)
        for error in found["generalDiagnostics"]
        if error["severity"] == "error"
    }


def run(checker: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", checker, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr  # 1: read to the end, and errors found
    return done.stdout
