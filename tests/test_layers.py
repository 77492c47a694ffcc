"""What knows nothing of stages and of the command line stays so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

ROOMS = ("data", "chat", "train", "evaluate", "recipe")
MODULES = sorted(path for room in ROOMS for path in (ROOT / "posttrain" / room).rglob("*.py"))


def imported(path: Path) -> list[str]:
    """Return what a module imports when it runs; what it imports for type checkers alone is left out."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_room_below_imports_stages_or_the_command_line(path: Path) -> None:
    above = [name for name in imported(path) if name.startswith(("posttrain.stages", "posttrain.cli"))]
    assert not above
