"""Unknown keys, types, choices and ranges, each with its line."""

from __future__ import annotations

import dataclasses
import re

import pytest

from posttrain.data.sources.base import Source
from posttrain.recipe import ranges, schema
from posttrain.recipe.check import hints, unknown_key
from posttrain.recipe.yaml_nodes import read_yaml
from tests.recipe.conftest import FULL, Chats, Load, Pairs, Problems


def test_a_full_recipe_loads(load_text: Load, full: str) -> None:
    recipe = load_text(full).recipe
    assert isinstance(recipe, schema.Recipe)
    assert recipe.model.new == schema.NewModel(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    assert recipe.data.sft == [
        Chats(
            source="chats",
            path="chats.jsonl",
            name="mine",
            revision="main",
            language=["en", "fi"],
            license="apache-2.0",
            fraction=0.5,
            take="all",
            states=["ready", "done"],
        ),
        Source(source="both", path="more.jsonl", max_rows=10),
    ]
    assert recipe.data.preference == [Pairs(source="pairs", path="pairs.jsonl", min_margin=2, repeat=1.5)]
    assert recipe.sft is not None
    assert recipe.sft.lr_scheduler_kwargs == {"min_lr": 1e-8}
    assert isinstance(recipe.sft.num_train_epochs, float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.seed = 3  # type: ignore[misc]


def test_defaults_are_those_of_the_schema(load_text: Load, small: str) -> None:
    assert load_text(small).recipe == schema.Recipe(
        name="small", output_dir="outputs/small", model=schema.Model(base="some/model")
    )


def test_null_gives_a_section_its_defaults_back(load_text: Load, small: str) -> None:
    assert load_text(small + "launch: null\ndata: {sft: null}\nreport_to:\n").recipe == load_text(small).recipe


def _keys() -> list[tuple[int, str]]:
    """Each key of the full recipe with the index of its line, but for three.

    One letter less than `r` or `n` is no key at all, and what is under `lr_scheduler_kwargs` is passed on unread.
    """
    found = [
        (index, match[1])
        for index, line in enumerate(FULL.splitlines())
        for match in re.finditer(r"(?:^|[\s{-])(\w+):(?=\s|$)", line)
    ]
    return [(index, key) for index, key in found if key not in ("r", "n", "min_lr")]


def test_a_missing_letter_in_any_key_names_the_right_key(problems: Problems) -> None:
    lines = FULL.splitlines()
    keys = _keys()
    assert len(keys) > 90
    for index, key in keys:
        at = index % len(key)  # another letter each time; the next test drops every one
        misspelt = key[:at] + key[at + 1 :]
        line = re.sub(rf"(?<!\w){key}:", f"{misspelt}:", lines[index], count=1)
        found = problems("\n".join([*lines[:index], line, *lines[index + 1 :]]) + "\n")
        about = [text for text in found if re.match(rf"x\.yaml:{index + 1}: (\S*\.)?{misspelt}: ", text)]
        assert len(about) == 1, (misspelt, found)
        meant = about[0].split("; ", 1)[1]
        assert re.search(rf"(?<!\w){key}(?!\w)", meant), (misspelt, about)


@pytest.mark.parametrize(
    ("section", "path"),
    [
        (schema.Recipe, ()),
        (schema.Model, ("model",)),
        (schema.NewModel, ("model", "new")),
        (schema.Cpt, ("cpt",)),
        (schema.TextSource, ("cpt", "text", 0)),
        (schema.Sft, ("sft",)),
        (schema.Lora, ("sft", "lora")),
        (schema.Dpo, ("dpo",)),
        (schema.Data, ("data",)),
        (schema.Validation, ("data", "validation")),
        (schema.Launch, ("launch",)),
        (Chats, ("data", "sft", 0)),
    ],
)
def test_any_missing_letter_names_the_right_key(section: type, path: tuple[str | int, ...]) -> None:
    known = list(hints(section))
    for key in known:
        for at in range(len(key)) if len(key) > 1 else ():
            misspelt = key[:at] + key[at + 1 :]
            message = unknown_key(misspelt, path, known)
            assert re.search(rf"(?<!\w){key}(?!\w)", message), (misspelt, message)


def test_every_key_of_the_schema_is_in_the_full_recipe() -> None:
    """So that the test above tries them all; `base` cannot stand beside `new`, and DPO and CPT share SFT's keys."""
    tree = read_yaml(FULL, "", [])
    assert tree is not None
    new, model, sft = tree.value["model"].value["new"].value, tree.value["model"].value, tree.value["sft"].value
    assert set(new) == set(schema.NewModel.__dataclass_fields__)
    assert set(model) == set(schema.Model.__dataclass_fields__) - {"base"}
    assert set(sft) == set(schema.Sft.__dataclass_fields__)
    assert set(sft["lora"].value) == set(schema.Lora.__dataclass_fields__)
    assert set(tree.value["dpo"].value) >= set(schema.Dpo.__dataclass_fields__) - set(schema.Sft.__dataclass_fields__)
    assert set(tree.value["launch"].value) == set(schema.Launch.__dataclass_fields__)
    assert set(tree.value) == set(schema.Recipe.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sft:\n  learing_rate: 1\n", "4: sft.learing_rate: unknown key; did you mean learning_rate?"),
        ("sft: {adam_beta: 1}\n", "3: sft.adam_beta: unknown key; did you mean adam_beta1 or adam_beta2?"),
        ("learning_rate: 1\n", "3: learning_rate: unknown key; learning_rate goes under cpt, sft or dpo"),
        ("sft: {r: 1}\n", "3: sft.r: unknown key; r goes under sft.lora or dpo.lora"),
        ("launch: {seed: 1}\n", "3: launch.seed: unknown key; seed goes at the top of the recipe"),
        ("learing_rate: 1\n", "3: learing_rate: unknown key; did you mean cpt.learning_rate, sft.learning_rate or"),
        ("launch: {qqqq: 1}\n", "3: launch.qqqq: unknown key; known here: num_processes, cpu, config"),
        ("sft: {neftune_noise_alpha: 5}\n", "3: sft.neftune_noise_alpha: unknown key; a field of SFTConfig goes under"),
    ],
)  # fmt: skip
def test_unknown_keys(problems: Problems, small: str, text: str, problem: str) -> None:
    found = problems(small + text)
    assert any(line.startswith(f"x.yaml:{problem}") for line in found), found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: abc", "seed: must be a whole number, not 'abc' (text)"),
        ("seed: 1.5", "seed: must be a whole number, not 1.5 (a number)"),
        ("seed: true", "seed: must be a whole number, not true (true or false)"),
        ("seed: null", "seed: must be a whole number, not null"),
        ("seed: [1]", "seed: must be a whole number, not a list"),
        ("seed: {a: 1}", "seed: must be a whole number, not a mapping"),
        ("output_dir: ''", "output_dir: must be a name, not empty, not "),
        ("output_dir: [a]", "output_dir: must be text, not a list"),
        ("launch: 3", "launch: must be a mapping of keys to values, not 3 (a whole number)"),
        ("launch: {cpu: 1}", "launch.cpu: must be true or false, not 1 (a whole number)"),
        ("launch: {cpu: maybe}", "launch.cpu: must be true or false, not 'maybe' (text)"),
        ("report_to: wandb", "report_to: must be a list of text, not 'wandb' (text)"),
        ("report_to: [[a]]", "report_to.0: must be text, not a list"),
        ("seed: ???", "seed: must be given, in the recipe or on the command line"),
        ("data: {validation: {fraction: lots}}", "data.validation.fraction: must be a number, not 'lots' (text)"),
        ("data: {sft: {source: chats}}", "data.sft: must be a list, not a mapping"),
        ("data: {sft: [chats]}", "data.sft.0: must be a mapping such as {source: ..., path: ...}, not 'chats' (text)"),
    ],
)
def test_types(problems: Problems, small: str, text: str, problem: str) -> None:
    found = problems(small + text + "\n")
    assert len(found) == 1
    assert found[0].startswith(f"x.yaml:3: {problem}")


def test_conversions_are_omegaconfs(load_text: Load, small: str) -> None:
    text = small + "seed: '7'\nlaunch: {cpu: 'on', num_processes: 1_0}\ndata: {validation: {fraction: '1e-1'}}\n"
    recipe = load_text(text).recipe
    assert (recipe.seed, recipe.launch.cpu, recipe.launch.num_processes) == (7, True, 10)
    assert recipe.data.validation.fraction == 0.1


def test_text_keeps_its_spelling(load_text: Load, small: str) -> None:
    """YAML 1.1 reads Norwegian as false, and a commit's short hash as an octal or a huge number."""
    one = "{source: chats, path: a, language: no, revision: 0123}"
    two = "{source: chats, path: b, language: [no, fi]}"
    loaded = load_text(f"{small}data: {{sft: [{one}, {two}]}}\n", "model.revision=1e10")
    assert loaded.recipe.data.sft[0].language == "no"
    assert loaded.recipe.data.sft[0].revision == "0123"
    assert loaded.recipe.data.sft[1].language == ["no", "fi"]
    assert loaded.recipe.model.revision == "1e10"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.dtype=fp8", "model.dtype: must be one of float32, bfloat16, float16, not 'fp8' (text)"),
        ("model.dtype=null", "model.dtype: must be one of float32, bfloat16, float16, not null"),
        ("sft.packing=off", "sft.packing: must be one of bfd, wrapped, none, not off (true or false)"),
        ("data.sft.0.take=best", "data.sft.0.take: must be one of top, all, not 'best' (text)"),
        ("sft.learning_rate=0", "sft.learning_rate: must be more than 0, not 0.0"),
        ("sft.learning_rate=nan", "sft.learning_rate: must be more than 0, not nan"),
        ("sft.learning_rate=.inf", "sft.learning_rate: must be more than 0, not inf"),
        ("sft.warmup_ratio=1.5", "sft.warmup_ratio: must be at least 0 and below 1, not 1.5"),
        ("dpo.global_batch_size=0", "dpo.global_batch_size: must be 1 or more, not 0"),
        ("sft.max_steps=0", "sft.max_steps: must be -1 (by epochs) or 1 or more, not 0"),
        ("sft.max_steps=-2", "sft.max_steps: must be -1 (by epochs) or 1 or more, not -2"),
        ("sft.adam_beta2=1", "sft.adam_beta2: must be at least 0 and below 1, not 1.0"),
        ("sft.eval_steps=-1", "sft.eval_steps: must be 0 or more, not -1"),
        ("sft.lora.r=0", "sft.lora.r: must be 1 or more, not 0"),
        ("sft.lora.dropout=1", "sft.lora.dropout: must be at least 0 and below 1, not 1.0"),
        ("sft.lora.target_modules=[]", "sft.lora.target_modules: must be all-linear, a list of module names, or one"),
        ("sft.lora.target_modules='q_proj,v_proj'", "sft.lora.target_modules: must be all-linear, a list of"),
        ("sft.lora.target_modules='('", "sft.lora.target_modules: must be all-linear, a list of module names, or one"),
        ("sft.lora.target_modules={a: 1}", "sft.lora.target_modules: must be text or a list of text, not a mapping"),
        ("dpo.beta=0", "dpo.beta: must be more than 0, not 0.0"),
        ("dpo.label_smoothing=0.5", "dpo.label_smoothing: must be at least 0 and below 0.5, not 0.5"),
        ("dpo.loss_type=[]", "dpo.loss_type: must be a list of one or more losses, not a list"),
        ("data.sft.0.fraction=1.01", "data.sft.0.fraction: must be between 0 and 1, not 1.01"),
        ("data.sft.1.max_rows=0", "data.sft.1.max_rows: must be 1 or more, not 0"),
        ("data.preference.0.repeat=0", "data.preference.0.repeat: must be more than 0, not 0.0"),
        ("data.validation.fraction=1", "data.validation.fraction: must be at least 0 and below 1, not 1.0"),
        ("launch.num_processes=0", "launch.num_processes: must be 1 or more, not 0"),
        ("model.new.vocab_size=256", "model.new.vocab_size: must be 257 or more, not 256"),
        ("seed=-1", "seed: must be between 0 and 4294967295, not -1"),
        ("name=a/b", "name: must be one word that can name a folder, not a/b"),
        ("cpt.validation_fraction=1", "cpt.validation_fraction: must be at least 0 and below 1, not 1.0"),
        ("cpt.text.0.path=null", "cpt.text.0.path: must be text, not null"),
    ],
)  # fmt: skip
def test_choices_and_ranges(problems: Problems, full: str, override: str, problem: str) -> None:
    full = full.replace("lora: ${sft.lora}", "lora: null")  # or the same problem is found twice
    found = problems(full, override)
    assert len(found) == 1
    assert found[0].startswith(f"command line: {problem}")


def test_target_modules_that_will_do(load_text: Load, full: str) -> None:
    for choice in ("all-linear", "[q_proj]", r"'.*\.(q|v)_proj'", "'.*[qv]{1,2}_proj'"):
        load_text(full, f"sft.lora.target_modules={choice}")


def test_every_range_is_of_a_key_that_exists() -> None:
    for section, rules in ranges.RULES.items():
        assert set(rules) <= {field.name for field in dataclasses.fields(section)}


@pytest.mark.parametrize("section", [schema.Recipe, schema.Model, schema.NewModel, schema.Sft, schema.Dpo, schema.Cpt])
def test_defaults_are_in_range(section: type) -> None:
    for field in dataclasses.fields(section):
        rule = ranges.rule_for(section, field.name)
        if rule is not None and field.default not in (dataclasses.MISSING, None):
            assert rule.holds(field.default), field.name


def test_all_problems_come_at_once_with_their_lines(problems: Problems) -> None:
    text = """\
name: x
name: y
modl: {base: a}
seed: abc
sft:
  learing_rate: 1
  warmup_ratio: 2
  packing: tight
  lora: {rank: 8}
  trainer: {seed: 1}
data:
  sft:
    - source: chat
      path: a
    - {path: b}
launch:
  config: ${oc.env:RECIPE_NOT_SET}
"""
    found = problems(text, "dpo", "dpo.beta=-1")
    assert sorted(" ".join(line.split(": ")[:2]) for line in found) == sorted(
        [
            "x.yaml:2 name",
            "x.yaml:3 modl",
            "x.yaml:4 seed",
            "x.yaml:6 sft.learing_rate",
            "x.yaml:7 sft.warmup_ratio",
            "x.yaml:8 sft.packing",
            "x.yaml:9 sft.lora.rank",
            "x.yaml:10 sft.trainer.seed",
            "x.yaml:13 data.sft.0.source",
            "x.yaml:15 data.sft.1.source",
            "x.yaml:17 launch.config",
            "command line dpo",
            "command line dpo.beta",
            "command line dpo",
        ]
    )


ENTRY = "data:\n  sft:\n    - "


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{path: a}", ["5: data.sft.0.source: missing; one of both, chats or pairs"]),
        ("{source: chats}", ["5: data.sft.0.path: missing; it has no default, so the recipe must give it"]),
        ("{source: chat, path: a}", ["5: data.sft.0.source: no source is called 'chat' (text); did you mean chats?"]),
        (
            "{source: zzz}",
            [
                "5: data.sft.0.path: missing; a hub id, a file or a folder",
                "5: data.sft.0.source: no source is called 'zzz' (text); the sources are both, chats and pairs",
            ],
        ),
        ("{source: [a], path: b}", ["5: data.sft.0.source: no source is called a list; the sources are"]),
        ("{sorce: chats, path: a}", ["5: data.sft.0.sorce: unknown key; did you mean source?"]),
        ("{source: chats, pth: a}", ["5: data.sft.0.pth: unknown key; did you mean path?"]),
        ("{source: pairs, path: a}", ["5: data.sft.0.source: pairs serves data.preference; here use both or chats"]),
        ("{source: both, path: a, quux: top}", ["5: data.sft.0.quux: unknown key; known here: source, path,"]),
        (
            "{source: chats, path: a, fraction: 0.1, repeat: 2}",
            ["5: data.sft.0: give at most one of fraction or repeat"],
        ),
    ],
)
def test_entries(problems: Problems, small: str, entry: str, expected: list[str]) -> None:
    found = problems(small + ENTRY + entry + "\n")
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(f"x.yaml:{start}")


def test_a_source_checks_its_own_options(problems: Problems, small: str) -> None:
    text = small + "data:\n  preference:\n    - source: pairs\n      path: a\n      min_margin: 9\n"
    assert problems(text) == ["x.yaml:7: data.preference.0.min_margin: 9 is more than any pair has"]
