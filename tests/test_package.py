"""What an installed posttrain brings with it, and what the constraints pin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import posttrain

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("recipes", "data", "launch")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ("test", "serve", "cluster", "embed", "language", "deepspeed", "eval", "quantize", "sign")


def files_below(folder: Path) -> set[str]:
    """Return the files below `folder` as posix paths relative to it, without Python's caches."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def run_python(*arguments: str, at: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run this Python in the folder `at` with `path` ahead of the installed packages."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=at, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and return the folder that it unpacks to."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return an empty folder, so that nothing is found because of where the command runs."""
    return tmp_path


@pytest.fixture(scope="module")
def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def declared(unpacked: Path) -> list[Requirement]:
    """Return what the wheel's metadata require, of the core and of all extras."""
    (path,) = unpacked.glob("posttrain-*.dist-info/METADATA")
    fields = Parser().parsestr(path.read_text(encoding="utf-8"))
    return [Requirement(line) for line in fields.get_all("Requires-Dist", [])]


def pins_for(python: str, constraints: list[Requirement]) -> dict[str, list[str]]:
    """Return the versions that the constraints leave to each package on one Python, by canonical name."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins: dict[str, list[str]] = {}
    for pin in constraints:
        if pin.marker is None or pin.marker.evaluate(environment):
            pins.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier))
    return pins


def test_wheel_holds_the_package_and_its_assets_and_nothing_else(unpacked: Path) -> None:
    tops = {path.name for path in unpacked.iterdir()}
    assert tops == {"posttrain", f"posttrain-{posttrain.__version__}.dist-info"}

    for room in ROOMS:
        assert files_below(unpacked / "posttrain" / "_assets" / room) == files_below(ROOT / room)
    assert "tiny.yaml" in files_below(unpacked / "posttrain" / "_assets" / "recipes")
    assert files_below(unpacked / "posttrain" / "_assets" / "data")

    code = {name for name in files_below(unpacked / "posttrain") if not name.startswith("_assets/")}
    assert code == files_below(ROOT / "posttrain")
    assert any(name.startswith("chat/templates/") and name.endswith(".jinja") for name in code)


def test_wheel_metadata(unpacked: Path) -> None:
    (folder,) = unpacked.glob("*.dist-info")
    fields = Parser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))
    assert fields["Version"] == posttrain.__version__
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.10"
    assert set(fields.get_all("Provides-Extra", [])) == set(EXTRAS)
    assert "posttrain = posttrain.cli:main" in (folder / "entry_points.txt").read_text(encoding="utf-8")
    assert (folder / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_installed_package_finds_its_own_assets(unpacked: Path, elsewhere: Path) -> None:
    program = (
        "import json; from posttrain.assets import asset_folder, locate;"
        f"print(json.dumps([str(asset_folder(room)) for room in {ROOMS}] + [locate('builtin:a/b.jsonl')]))"
    )
    done = run_python("-c", program, at=elsewhere, path=unpacked)
    assert done.returncode == 0, done.stderr
    assets = unpacked / "posttrain" / "_assets"
    assert json.loads(done.stdout) == [*(str(assets / room) for room in ROOMS), str(assets / "data" / "a" / "b.jsonl")]


def test_installed_package_lists_its_recipes(unpacked: Path, elsewhere: Path) -> None:
    done = run_python("-m", "posttrain", "recipes", at=elsewhere, path=unpacked)
    assert done.returncode == 0, done.stderr
    assert "tiny" in done.stdout
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_leave_one_version_of_each_requirement(
    python: str, constraints: list[Requirement], unpacked: Path
) -> None:
    pins = pins_for(python, constraints)
    assert {name: versions for name, versions in pins.items() if len(versions) != 1} == {}

    unmet = []
    for requirement in declared(unpacked):
        environments = [{"python_version": python, "extra": extra} for extra in ("", *EXTRAS)]
        if requirement.marker is not None and not any(requirement.marker.evaluate(each) for each in environments):
            continue
        (pin,) = pins.get(canonicalize_name(requirement.name), ["unpinned"])
        if not pin.startswith("==") or not requirement.specifier.contains(pin.removeprefix("==")):
            unmet.append(f"{requirement}: {pin}")
    assert unmet == []


def test_constraints_name_everything_that_is_installed_for_posttrain(
    constraints: list[Requirement], unpacked: Path
) -> None:
    pinned = {canonicalize_name(pin.name) for pin in constraints}
    # What torch itself needs depends on its build: the CPU, CUDA and ROCm wheels differ.
    seen = {canonicalize_name("posttrain"), canonicalize_name("torch")}
    waiting: list[tuple[Requirement, tuple[str, ...]]] = [(each, ("", *EXTRAS)) for each in declared(unpacked)]
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in extras)
        if name in seen or not wanted:
            continue
        try:
            inner = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of an extra that is not installed here
            continue
        seen.add(name)
        # The empty extra stands for the plain package, which is always asked for.
        waiting.extend((Requirement(line), ("", *sorted(requirement.extras))) for line in inner)
    assert len(seen) > len(declared(unpacked)) // 2
    assert seen - pinned == {canonicalize_name("posttrain")}
