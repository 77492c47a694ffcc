"""Finding recipes, and putting together what they extend."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.recipe import builtin_recipes, files, find_recipe, load
from posttrain.recipe.origins import to_plain
from tests.recipe.conftest import Write


@pytest.fixture
def builtins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the recipes `tiny` and `large`, and a fragment, away from the working folder."""
    folder = tmp_path / "package" / "recipes"
    (folder / "fragments").mkdir(parents=True)
    (folder / "tiny.yaml").write_text("\n# A tiny model.\n# More about it.\nname: tiny\n")
    (folder / "large.yaml").write_text("name: large\n# Not a description.\n")
    (folder / "fragments" / "shared.yaml").write_text("seed: 5\n")
    monkeypatch.setattr(files, "asset_folder", lambda room: tmp_path / "package" / room)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def read(path: Path) -> dict[str, object]:
    problems: list[str] = []
    plain = to_plain(files.read_chain(path, problems))
    assert not problems
    assert isinstance(plain, dict)
    return plain


def fatal(path: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        files.read_chain(path, [])
    return caught.value.problems


def test_builtin_recipes_have_names_and_descriptions(builtins: Path) -> None:
    assert builtin_recipes() == [
        ("large", "", builtins / "large.yaml"),
        ("tiny", "A tiny model.", builtins / "tiny.yaml"),
    ]


@pytest.mark.parametrize("name", ["tiny", "tiny.yaml", "recipes/tiny.yaml", "recipes/tiny"])
def test_a_builtin_has_four_names(builtins: Path, name: str) -> None:
    assert find_recipe(name) == builtins / "tiny.yaml"


def test_a_path_wins_over_a_builtin(builtins: Path) -> None:
    Path("tiny.yaml").write_text("name: mine\n")
    assert find_recipe("tiny.yaml") == Path("tiny.yaml")
    assert find_recipe("tiny") == builtins / "tiny.yaml"


def test_an_unknown_name_names_the_nearest(builtins: Path) -> None:
    with pytest.raises(UserError, match=r"^tinny\.yaml: no such file.*; did you mean tiny\?$"):
        find_recipe("tinny.yaml")
    with pytest.raises(UserError, match=r"^qqqq: .*; known: large, tiny$"):
        find_recipe("qqqq")
    Path("folder").mkdir()
    with pytest.raises(UserError, match=r"^folder: a folder, not a recipe"):
        find_recipe("folder")


def test_a_builtin_is_never_looked_for_outside(builtins: Path) -> None:
    (builtins.parent / "secret.yaml").write_text("name: secret\n")
    with pytest.raises(UserError):
        find_recipe("recipes/../secret")


def test_extends_merges_mappings_and_replaces_lists(write: Write) -> None:
    write("name: base\na: {x: 1, y: {z: 2}}\nlist: [1, 2]\nsection: {k: 1}\n", "base.yaml")
    child = write("extends: base.yaml\nname: child\na: {y: {w: 3}}\nlist: [3]\nsection: null\n")
    assert read(child) == {"name": "child", "a": {"x": 1, "y": {"z": 2, "w": 3}}, "list": [3], "section": None}


def test_later_parents_win_and_chains_are_followed(write: Write) -> None:
    write("a: 1\nb: 1\nc: 1\nd: 1\n", "deep/one.yaml")
    write("extends: one.yaml\nb: 2\nc: 2\n", "deep/two.yaml")
    write("c: 3\n", "three.yaml")
    assert read(write("extends: [deep/two.yaml, three.yaml]\n")) == {"a": 1, "b": 2, "c": 3, "d": 1}


def test_extends_falls_back_to_a_builtin(builtins: Path) -> None:
    for name in ("fragments/shared.yaml", "recipes/fragments/shared.yaml", "fragments/shared"):
        Path("x.yaml").write_text(f"extends: {name}\nname: x\n")
        assert read(Path("x.yaml")) == {"seed": 5, "name": "x"}


def test_origins_name_the_file_that_said_it(write: Write) -> None:
    write("model:\n  base: some/model\nseed: 1\n", "base.yaml")
    loaded = load(write("extends: base.yaml\nname: x\nseed: 2\n"), ["output_dir=here"])
    shown = {key: str(origin) for key, origin in loaded.origins.items()}
    assert shown["model.base"] == "base.yaml:2"
    assert shown["seed"] == "x.yaml:3"
    assert shown["output_dir"] == "command line"
    assert shown["launch.cpu"] == "default"


def test_cycles_are_errors(write: Write) -> None:
    write("# a\nextends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    write("extends: [a.yaml]\n", "c.yaml")
    circle = "a.yaml -> b.yaml -> c.yaml -> a.yaml"
    assert fatal(Path("a.yaml")) == [f"c.yaml:1: extends: goes round in a circle: {circle}"]
    assert fatal(write("extends: self.yaml\n", "self.yaml")) == [
        "self.yaml:1: extends: goes round in a circle: self.yaml -> self.yaml"
    ]


def test_two_parents_may_share_one(write: Write) -> None:
    write("a: 1\na: 1\n", "root.yaml")
    write("extends: root.yaml\n", "left.yaml")
    write("extends: root.yaml\n", "right.yaml")
    problems: list[str] = []
    tree = files.read_chain(write("extends: [left.yaml, right.yaml]\n"), problems)
    assert to_plain(tree) == {"a": 1}
    assert problems == ["root.yaml:2: a: this key is given twice, first on line 1; keep one of them"]


def test_what_cannot_be_extended_is_reported_together(write: Write) -> None:
    write("a: [\n", "broken.yaml")
    found = fatal(write("name: x\nextends: [nowhere.yaml, broken.yaml, 3]\n"))
    assert found == [
        "x.yaml:2: extends: must be a file name or a list of file names",
        "x.yaml:2: extends: there is no file nowhere.yaml beside x.yaml, and no such built-in",
        "broken.yaml:2: not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
    ]


def test_files_that_are_not_recipes(write: Write) -> None:
    assert fatal(write("- 1\n")) == ["x.yaml:1: a recipe is a mapping of keys to values, such as `name: my-model`"]
    Path("x.yaml").write_bytes(b"name: \xff\n")
    assert fatal(Path("x.yaml")) == ["x.yaml: cannot be read: not UTF-8 text"]
    assert fatal(Path("none.yaml")) == ["none.yaml: cannot be read: No such file or directory"]


def test_an_empty_recipe_misses_its_name(write: Write) -> None:
    with pytest.raises(UserError) as caught:
        load(write(""))
    assert caught.value.problems == [
        "x.yaml: name: missing; it has no default, so the recipe must give it",
        "x.yaml: model: give base (a hub id or a folder) or new (a model made from scratch)",
    ]
