"""The tiny recipe to the end in two copies of the project: the same bytes, verified, and built again from a release."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from posttrain.release.sums import BUILD, release_files
from tests.helpers import ROOT

pytestmark = pytest.mark.slow
FEW_STEPS = ("cpt.max_steps=30", "sft.max_steps=20", "dpo.max_steps=10")  # what is equal here does not depend on more


def copy_of_the_project(to: Path) -> Path:
    """Copy what a fresh clone has, as far as a run needs it."""
    to.mkdir(parents=True)
    for room in ("posttrain", "recipes", "data", "launch"):
        shutil.copytree(ROOT / room, to / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "constraints.txt", to)
    return to


def posttrain(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["XDG_CACHE_HOME"] = str(clone / "cache")
    command = [sys.executable, "-m", "posttrain", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=3600)


def test_two_clones_release_the_same_bytes_and_a_release_can_be_built_again(tmp_path: Path) -> None:
    quantises = find_spec("gptqmodel") is not None and find_spec("optimum") is not None
    recipe = "tiny-quantized" if quantises else "tiny"
    clones = [copy_of_the_project(tmp_path / place) for place in ("one", "somewhere/else/entirely")]
    for clone in clones:
        done = posttrain(clone, "run", f"recipes/{recipe}.yaml", *FEW_STEPS)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = (clone / "outputs" / recipe / "release" for clone in clones)
    names = {"sft", "instruct", *(["gptq-4bit-64g-actorder_True"] if quantises else [])}
    assert {path.name for path in one.iterdir() if path.is_dir()} == names
    for name in names:
        files = release_files(one / name)
        assert files == release_files(two / name)
        different = [file for file in files if (one / name / file).read_bytes() != (two / name / file).read_bytes()]
        assert different == [BUILD], name

    verified = posttrain(clones[0], "verify", str(two))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.count("in order (") == len(names)

    rebuilt = posttrain(clones[1], "run", "--verify-rebuild", str(one / "instruct"))
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    assert rebuilt.stdout.splitlines()[-1] == "what was built again is equal in every byte"
