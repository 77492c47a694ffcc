"""YAML is read as OmegaConf reads it, with lines."""

from __future__ import annotations

import math

import pytest
from omegaconf import OmegaConf

from posttrain.recipe.origins import to_plain, walk
from posttrain.recipe.yaml_nodes import read_yaml

SCALARS = [
    "1", "-1", "+1", "0", "007", "0o7", "0x1F", "0b11", "1_000", "1:30", "1:30.5", "5e-6", "5E-6", "5.0e-6",
    "5.e-6", "5.0e6", "5.0e+6", "5e6", "-5e-6", "+5e-6", ".5", ".5e-6", ".5e6", "-.5", "5.", "1_0.5", "1_0e-3",
    "_1.0", "1__0.0", "1e", "1e-", "e-6", "5e-6x", "1.2.3", ".", ".inf", "-.inf", "+.inf", ".Inf", ".nan",
    ".NaN", "inf", "nan", "2024-01-31", "yes", "no", "on", "off", "Yes", "NO", "On", "OFF", "y", "n", "true",
    "false", "True", "TRUE", "null", "Null", "NULL", "~", "text", "a.b", "1a",
]  # fmt: skip


@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars_read_as_in_omegaconf(scalar: str) -> None:
    problems: list[str] = []
    ours = read_yaml(f"value: {scalar}\n", "x.yaml", problems)
    assert ours is not None
    assert not problems
    theirs = OmegaConf.create(f"value: {scalar}\n").value
    value = ours.value["value"].value
    assert type(value) is type(theirs)
    assert value == theirs or math.isnan(value)


def test_every_key_and_item_has_its_line() -> None:
    text = "a: 1\n\n# comment\nb:\n  c: 2\n  d:\n    - 3\n    - e: 4\n      f: >\n        long\n"
    tree = read_yaml(text, "x.yaml", [])
    assert tree is not None
    lines = {".".join(map(str, path)): str(node.origin) for path, node in walk(tree)}
    assert lines == {
        "a": "x.yaml:1",
        "b": "x.yaml:4",
        "b.c": "x.yaml:5",
        "b.d": "x.yaml:6",
        "b.d.0": "x.yaml:7",
        "b.d.1": "x.yaml:8",
        "b.d.1.e": "x.yaml:8",
        "b.d.1.f": "x.yaml:9",
    }


def test_anchors_and_merge_keys() -> None:
    problems: list[str] = []
    tree = read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n", "x.yaml", problems)
    assert tree is not None
    assert to_plain(tree) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
    assert not problems


def test_keys_keep_their_spelling() -> None:
    tree = read_yaml("on: 1\n8: 2\n", "x.yaml", [])
    assert tree is not None
    assert list(tree.value) == ["on", "8"]


def test_duplicate_keys_are_problems_at_any_depth_and_reading_goes_on() -> None:
    problems: list[str] = []
    tree = read_yaml("a: 1\nb:\n  - {c: 1, c: 2}\na: 2\n", "x.yaml", problems)
    assert problems == [
        "x.yaml:4: a: this key is given twice, first on line 1; keep one of them",
        "x.yaml:3: c: this key is given twice, first on line 3; keep one of them",
    ]
    assert tree is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "x.yaml:3: not valid YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("a:\n\tb: 1\n", "x.yaml:2: not valid YAML: while scanning for the next token, found character '\\t'"),
        ("a: !!python/object:os.system x\n", "x.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: *missing\n", "x.yaml:1: not valid YAML: found undefined alias 'missing'"),
        ("a: 1\nb: &b\n  c: *b\n", "x.yaml:2: not valid YAML: an alias inside its own anchor"),
        ("a: 1\n[1, 2]: 3\n", "x.yaml:2: not valid YAML: a key must be a word"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: expected a single document"),
        ("a: !!int x\n", "x.yaml: not valid YAML: invalid literal for int()"),
        ("a: \x00\n", "x.yaml: not valid YAML: unacceptable character"),
    ],
)
def test_syntax_errors_say_the_line(text: str, problem: str) -> None:
    problems: list[str] = []
    assert read_yaml(text, "x.yaml", problems) is None
    assert len(problems) == 1
    assert problems[0].startswith(problem)
