"""Uploading to a stand-in for the hub: private, resumable, a branch a variant, and nothing said of the token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.release import push as pushing
from posttrain.release.push import plans, push_all
from posttrain.release.sums import release_files, write_sums
from tests.release.hub import TOKEN, Hub

SFT, INSTRUCT = "lab/Mini-SFT", "lab/Mini-Instruct"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, to which huggingface_hub talks as to the hub."""
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(pushing, "_LARGE", 100_000)  # so that the weights of the tiny model are a large file
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folders(built: Path, tmp_path: Path) -> Path:
    """A copy of all release folders."""
    return Path(shutil.copytree(built / "release", tmp_path / "release"))


def send(folders: Path, *, public: bool = False, dry_run: bool = False) -> list[str]:
    said: list[str] = []
    try:
        push_all(folders, public=public, dry_run=dry_run, say=said.append)
    finally:
        assert TOKEN not in "\n".join(said)
    return said


def test_every_folder_is_sent_whole_to_a_private_repository(hub: Hub, folders: Path) -> None:
    said = send(folders)
    assert set(hub.repositories) == {SFT, INSTRUCT}
    assert hub.tokens == {f"Bearer {TOKEN}"}
    for repository, name in ((SFT, "sft"), (INSTRUCT, "instruct")):
        assert hub.repositories[repository].private
        sent = hub.content(repository)
        assert set(sent) == {*release_files(folders / name), ".gitattributes"}
        assert all(sent[file] == (folders / name / file).read_bytes() for file in release_files(folders / name))
        first, last = hub.repositories[repository].commits
        assert first == "main: Add model.safetensors", "weights before what describes them"
        assert last.startswith("main: Add ")
    assert (
        f"{SFT}, branch main: {len(release_files(folders / 'sft'))} files sent, 0 were there, 0 removed there" in said
    )


def test_public_only_if_asked_for(hub: Hub, folders: Path) -> None:
    send(folders, public=True)
    assert not hub.repositories[SFT].private


def test_a_second_push_sends_nothing(hub: Hub, folders: Path) -> None:
    send(folders)
    commits, uploads = list(hub.repositories[SFT].commits), list(hub.uploads)
    said = send(folders)
    assert hub.repositories[SFT].commits == commits
    assert hub.uploads == uploads
    count = len(release_files(folders / "sft"))
    assert f"{SFT}, branch main: 0 files sent, {count} were there, 0 removed there" in said


def test_what_is_not_in_the_release_is_removed_there(hub: Hub, folders: Path) -> None:
    send(folders)
    hub.repositories[SFT].branches["main"]["pytorch_model.bin"] = b"old"
    said = send(folders)
    assert "pytorch_model.bin" not in hub.content(SFT)
    assert ".gitattributes" in hub.content(SFT)
    assert any(line.endswith("1 removed there") for line in said)


def test_a_push_that_was_cut_off_goes_on(hub: Hub, folders: Path) -> None:
    hub.fail_after = 1
    with pytest.raises(UserError, match="what was sent stays there, and the same command goes on") as caught:
        send(folders)
    assert TOKEN not in str(caught.value)
    (sent,) = hub.uploads
    hub.fail_after = None
    send(folders)
    assert hub.uploads.count(sent) == 1, "what had arrived is not sent again"
    for repository, name in ((SFT, "sft"), (INSTRUCT, "instruct")):
        assert set(hub.content(repository)) == {*release_files(folders / name), ".gitattributes"}


def test_variants_are_branches_of_one_repository(hub: Hub, folders: Path) -> None:
    """The default one is `main`, and made first, for branches start from it."""
    for name, branch in (("sft", "gptq-8bit-64g-actorder_True"), ("instruct", "main")):
        about = folders / name / "release.json"
        content = json.loads(about.read_text(encoding="utf-8"))
        content.update(repository="lab/Mini-Instruct-GPTQ", branch=branch)
        about.write_text(json.dumps(content), encoding="utf-8")
        write_sums(folders / name)
    listed = pushing_plans(folders)
    assert [plan.branch for plan in listed] == ["main", "gptq-8bit-64g-actorder_True"]
    push_all_of(listed)
    assert set(hub.repositories) == {"lab/Mini-Instruct-GPTQ"}
    branches = hub.repositories["lab/Mini-Instruct-GPTQ"].branches
    assert set(branches) == {"main", "gptq-8bit-64g-actorder_True"}
    sent = hub.content("lab/Mini-Instruct-GPTQ", "gptq-8bit-64g-actorder_True")
    assert set(sent) == {*release_files(folders / "sft"), ".gitattributes"}


def pushing_plans(folders: Path) -> list[pushing.Plan]:
    """Plan without the linter's say, to whom the cards name other repositories."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posttrain.verify.release._check_card", lambda *given: None)
        return plans(folders)


def push_all_of(listed: list[pushing.Plan]) -> None:
    from huggingface_hub import HfApi

    for plan in listed:
        pushing.push(HfApi(token=TOKEN), plan, public=False, say=lambda line: None)


def test_a_dry_run_asks_nobody(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = send(folders, dry_run=True)
    assert sum(line.startswith("lab/Mini-") for line in said) == 2
    assert sum(line.endswith("  model.safetensors") for line in said) == 2
    assert said[-1] == "nothing was sent (--dry-run); repositories that do not exist would be made, private"


def test_damage_and_bad_names_are_not_published(hub: Hub, folders: Path) -> None:
    (folders / "sft" / "LICENSE").write_text("none\n", encoding="utf-8")
    about = folders / "instruct" / "release.json"
    content = json.loads(about.read_text(encoding="utf-8"))
    about.write_text(json.dumps({**content, "branch": "../main"}), encoding="utf-8")
    write_sums(folders / "instruct")
    with pytest.raises(UserError) as caught:
        send(folders)
    assert "sft: LICENSE: was changed; SHA256SUMS has another digest" in caught.value.problems
    assert any("'../main' is no name" in problem for problem in caught.value.problems)
    assert hub.repositories == {}


def test_without_a_token_it_is_said_how_to_give_one(
    folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="there is no token of the hub; set HF_TOKEN"):
        send(folders)
