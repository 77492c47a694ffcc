"""What has to agree between the entries of `generate`, the models they ask, and the entries of `data` that use them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posttrain.recipe.schema_generate import MagpieRollout, Rate, Respond
from tests.recipe.conftest import Load, Problems

HEAD = "name: x\nmodel: {base: a}\n"
TEACHER = HEAD + "teacher: {model: big}\n"
SOURCE = "source: {source: chats, path: a}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            HEAD + f"generate:\n  - {{rollout: respond, name: a, {SOURCE}}}\n",
            "x.yaml:4: generate.0.rollout: there is no teacher to ask; give a section teacher with its model",
        ),
        (
            TEACHER + "generate:\n  - {rollout: respond, name: a}\n",
            "x.yaml:5: generate.0.source: respond works on rows; give source, or rows_from with the name of an earlier",
        ),
        (
            TEACHER + f"generate:\n  - {{rollout: respond, name: a, {SOURCE}, rows_from: b}}\n",
            "x.yaml:5: generate.0.rows_from: source is given too; keep one of them",
        ),
        (
            TEACHER + "generate:\n  - {rollout: rate, name: a, rows_from: b}\n",
            "x.yaml:5: generate.0.rows_from: no entry before this one is called 'b'; it is the first",
        ),
        (
            TEACHER + f"generate:\n  - {{rollout: magpie, name: a, rows: 3, {SOURCE}}}\n",
            "x.yaml:5: generate.0.source: magpie writes its rows itself",
        ),
        (
            TEACHER + "generate:\n  - {rollout: magpie, name: a, rows: 3}\n  - {rollout: magpie, name: a, rows: 3}\n",
            "x.yaml:6: generate.1.name: 'a' is the name of an entry before it; give each its own",
        ),
        (
            TEACHER + f"generate:\n  - {{rollout: respond, name: a, {SOURCE}, n: 4, best_of: reward}}\n",
            "x.yaml:5: generate.0.best_of: reward needs a section reward with a reward model",
        ),
        (
            TEACHER + f"generate:\n  - {{rollout: respond, name: a, {SOURCE}, best_of: judge}}\n",
            "x.yaml:5: generate.0.n: judge chooses the best of n answers, and n is 1; give more, or best_of: first",
        ),
        (
            TEACHER + f"generate:\n  - {{rollout: translate, name: a, {SOURCE}, to: finish}}\n",
            "x.yaml:5: generate.0.to: 'finish' is no language; give an ISO code such as en, fi",
        ),
        (
            TEACHER + "generate:\n  - {rolout: magpie, name: a, rows: 3}\n",
            "x.yaml:5: generate.0.rolout: unknown key; did you mean rollout?",
        ),
        (
            TEACHER + "generate:\n  - {rollout: magpi, name: a, rows: 3}\n",
            "x.yaml:5: generate.0.rollout: no rollout is called 'magpi' (text); did you mean magpie?",
        ),
        (
            TEACHER + "generate:\n  - {rollout: magpie, name: a, rows: 3, turn: 2}\n",
            "x.yaml:5: generate.0.turn: unknown key; did you mean turns?",
        ),
        (
            TEACHER + "generate:\n  - {rollout: magpie, name: a/b, rows: 3}\n",
            "x.yaml:5: generate.0.name: must be one word that can name a folder, not a/b",
        ),
        (
            TEACHER + f"generate:\n  - {{rollout: respond, name: a, {SOURCE}, sampling: {{top_p: 0}}}}\n",
            "x.yaml:5: generate.0.sampling.top_p: must be more than 0 and at most 1, not 0.0",
        ),
        (
            TEACHER + "generate:\n  - {rollout: respond, name: a, source: {source: chats, pth: a}}\n",
            "x.yaml:5: generate.0.source.pth: unknown key; did you mean path?",
        ),
        (HEAD + "teacher: {model: big, base_url: localhost}\n", "x.yaml:3: teacher.base_url: must be an http:// or"),
        (
            HEAD + "teacher: {model: big, api_key_env: sk-abc123}\n",
            "x.yaml:3: teacher.api_key_env: must be the name of the environment variable that holds the key",
        ),
    ],
)
def test_what_does_not_fit_together(problems: Problems, text: str, problem: str) -> None:
    [found] = problems(text)
    assert found.startswith(problem)


def test_entries_become_the_options_of_their_rollouts(load_text: Load) -> None:
    recipe = load_text(
        HEAD
        + "teacher: {model: big}\njudge: {model: judge}\nreward: {model: rm}\ngenerate:\n"
        + f"  - {{rollout: respond, name: a, {SOURCE}, n: 4, best_of: both}}\n"
        + "  - {rollout: rate, name: b, rows_from: a}\n"
        + "  - {rollout: magpie, name: c, rows: 5, categories: [{name: maths}]}\n"
    ).recipe
    respond, rate, magpie = recipe.generate
    assert isinstance(respond, Respond)
    assert respond.sampling.temperature == 0.7
    assert respond.source.path == "a"
    assert isinstance(rate, Rate)
    assert rate.scales == ["quality"]
    assert isinstance(magpie, MagpieRollout)
    assert (magpie.categories[0].name, magpie.categories[0].weight) == ("maths", 1)


def test_a_key_of_a_sampling_leaves_the_entry_s_own_defaults_for_the_others(load_text: Load) -> None:
    text = TEACHER + "generate:\n  - {rollout: magpie, name: a, rows: 5, instruction: {top_p: 0.9}, sampling: null}\n"
    [magpie] = load_text(text).recipe.generate
    default = MagpieRollout(rollout="magpie", name="a", rows=5)
    assert magpie.instruction == replace(default.instruction, top_p=0.9)
    assert magpie.instruction.temperature == 1.0
    assert magpie.sampling == default.sampling
    assert magpie.sampling.temperature == 0.0


def test_a_rating_needs_a_judge_only(load_text: Load) -> None:
    text = HEAD + f"judge: {{model: judge}}\ngenerate:\n  - {{rollout: rate, name: a, {SOURCE}}}\n"
    assert load_text(text).recipe.teacher is None
