from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.release.card import run_usage, usage_record, write_card
from posttrain.release.card.usage import usage_of
from tests.helpers import make_tokenizer, save_checkpoint
from tests.release.card.family import DEFAULT, INSTRUCT, OTHER, inputs

FIND = 'from huggingface_hub import hf_hub_download\nrepository = "lab/model"\n'


def card(code: str) -> str:
    return f"# A model\n\n```python\n{code}\n```\n"


@pytest.mark.slow
def test_the_code_of_a_card_runs_as_written_on_a_released_folder(tmp_path: Path) -> None:
    folder = save_checkpoint(make_tokenizer(), tmp_path / "released")
    before = sorted(path.name for path in folder.iterdir())
    text = write_card(inputs(max_new_tokens=4, prompt='Say "Järvi\n".'))
    assert f'repository = "{INSTRUCT}"' in text
    assert run_usage(text, folder, timeout=300).endswith("\n")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_repository_and_branch_of_the_code_are_the_folder_and_no_other_is_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"found": 1}', encoding="utf-8")
    load = 'print(open(hf_hub_download({}, "config.json"{})).read())'
    code = FIND + load.format("repository", "") + f"\ntry:\n    {load.format(repr('lab/another'), '')}\n"
    code += "except Exception as error:\n    print(type(error).__name__)"
    assert run_usage(card(code), tmp_path, timeout=60).split("\n")[:2] == ['{"found": 1}', "LocalEntryNotFoundError"]
    branch = f'branch = "{OTHER}"\n' + load.format("repository", ", revision=branch")
    assert run_usage(card(FIND + branch), tmp_path, timeout=60).strip() == '{"found": 1}'


def test_code_that_fails_or_does_not_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fails: ZeroDivisionError"):
        run_usage(card('repository = "a/b"\n1 / 0'), tmp_path, timeout=60)
    with pytest.raises(UserError, match="did not end within 1 s"):
        run_usage(card('repository = "a/b"\nimport time\ntime.sleep(60)'), tmp_path, timeout=1)
    for text in ("# No code\n", card("print(1)")):
        with pytest.raises(UserError, match="no usage code that names a repository"):
            run_usage(text, tmp_path, timeout=60)


def test_the_record_tells_one_code_from_another() -> None:
    one, other = write_card(inputs("sft")), write_card(inputs(DEFAULT))
    assert json.loads(usage_record(one)) != json.loads(usage_record(other))
    assert usage_record(one) == usage_record(write_card(inputs("sft", about="Another sentence.")))
    assert f"```python\n{usage_of(one)}\n```" in one
