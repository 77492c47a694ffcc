"""The engine in this process: an answer depends on its request alone, and ends where it should."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, TemperatureLogitsWarper, TopPLogitsWarper

from posttrain.chat import render
from posttrain.data.generate.batching import Batcher
from posttrain.data.generate.local import Local
from posttrain.data.generate.requests import Answer, Failed, Request, Transient
from posttrain.data.generate.sampling import Draw, RowSampler
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Sampling, Teacher
from tests.helpers import environment, make_tokenizer, save_checkpoint

BOS = "<|begin_of_text|>"
TEXTS = ["The lake", "Järvi on tyyni ja vene on punainen." * 4, "A fox runs over", "x", "Boats are red. " * 9, "Hei"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(make_tokenizer(), tmp_path_factory.mktemp("checkpoint"))


def teacher(folder: Path, **options: Any) -> Teacher:
    given: dict[str, Any] = {"engine": "local", "model": str(folder), "dtype": "float32", "batch_size": 8}
    return Teacher(**(given | options))


def prompt(text: str, seed: int | None = None, **sampling: Any) -> Request:
    return Request(
        prompt=BOS + text, sampling=Sampling(**({"temperature": 0.0, "max_tokens": 12} | sampling)), seed=seed
    )


def chat(text: str, **sampling: Any) -> Request:
    options = Sampling(**({"temperature": 0.0, "max_tokens": 12} | sampling))
    return Request(messages=({"role": "user", "content": text},), sampling=options)


def answers(section: Teacher, requests: Sequence[Request]) -> list[Any]:
    """Ask all at once; return answers and exceptions."""

    async def ask() -> list[Any]:
        engine = Local(section)
        try:
            return await asyncio.gather(*map(engine.complete, requests), return_exceptions=True)
        finally:
            await engine.close()

    return asyncio.run(ask())


def answer(section: Teacher, request: Request) -> Any:
    return answers(section, [request])[0]


def test_an_answer_does_not_depend_on_its_batch_or_the_order(checkpoint: Path) -> None:
    requests = [
        prompt(text, seed, temperature=temperature, top_p=top_p, max_tokens=8 + seed)
        for seed, (text, (temperature, top_p)) in enumerate(
            (text, way) for text in TEXTS for way in ((0.0, 1.0), (1.0, 1.0), (0.7, 0.8))
        )
    ]
    alone = answers(teacher(checkpoint, batch_size=1), requests)
    assert all(isinstance(one, Answer) for one in alone)
    assert len({one.text for one in alone}) > len(requests) // 2
    assert answers(teacher(checkpoint, batch_size=5), requests) == alone
    assert answers(teacher(checkpoint, batch_size=18), requests[::-1])[::-1] == alone


def test_seeds_make_samples_differ_and_greedy_answers_need_none(checkpoint: Path) -> None:
    first, again, other, unseeded, unseeded_again = answers(
        teacher(checkpoint), [prompt("The lake", seed, temperature=1.0) for seed in (1, 1, 2, None, None)]
    )
    assert first == again != other
    assert unseeded == unseeded_again
    greedy, seeded = answers(teacher(checkpoint), [prompt("The lake"), prompt("The lake", 7)])
    assert greedy == seeded


def test_a_greedy_answer_is_that_of_transformers(checkpoint: Path) -> None:
    tokenizer = make_tokenizer()
    model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    requests = [chat(text, max_tokens=20) for text in TEXTS]
    for request, got in zip(requests, answers(teacher(checkpoint), requests), strict=True):
        assert request.messages is not None
        text = render(
            _saved_template(checkpoint),
            request.messages,
            tokenizer.special_tokens_map,
            add_generation_prompt=True,
        ).text
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        expected = model.generate(ids, do_sample=False, max_new_tokens=20)[0, ids.shape[1] :]
        assert got.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert (got.prompt_tokens, got.completion_tokens) == (ids.shape[1], len(expected))


def _saved_template(folder: Path) -> str:
    return (folder / "chat_template.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.8), (1.7, 0.35), (1.0, 1e-9)])
def test_draws_follow_the_distribution_of_transformers(temperature: float, top_p: float) -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(3)) * 2
    ids = torch.zeros(1, 1, dtype=torch.long)
    warped = TopPLogitsWarper(top_p)(ids, TemperatureLogitsWarper(temperature)(ids, logits))
    expected = warped.softmax(dim=1)[0]
    rows = 4000
    draws = [Draw(temperature, top_p, seed) for seed in range(rows)]
    picked = RowSampler(draws, torch.device("cpu"))(ids, logits.expand(rows, -1)).argmax(dim=1)
    found = torch.bincount(picked, minlength=12) / rows
    assert not found[expected == 0].any()
    assert (found - expected).abs().max() < 0.03  # about four standard errors


def test_a_row_without_numbers_fails_and_the_others_do_not(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [prompt("The lake", 1, temperature=1.0), prompt("A fox", 2, temperature=1.0)]
    expected = answers(teacher(checkpoint), requests)
    sampled = RowSampler.__call__

    def spoil(self: RowSampler, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[0] = torch.nan
        return sampled(self, input_ids, scores)

    monkeypatch.setattr(RowSampler, "__call__", spoil)
    spoilt, sound = answers(teacher(checkpoint), requests)
    assert isinstance(spoilt, Failed)
    assert sound == expected[1]


def test_stop_strings_end_an_answer_before_them(checkpoint: Path) -> None:
    whole = answer(teacher(checkpoint), prompt("The lake", max_tokens=40))
    assert whole.finish_reason == "length"
    assert whole.completion_tokens == 40
    middle = len(whole.text) // 2
    stops = [whole.text[middle : middle + 5], "never written"]
    cut, other, rest = answers(
        teacher(checkpoint),
        [
            prompt("The lake", max_tokens=40, stop=stops),
            prompt("A fox runs", max_tokens=40, stop=[]),
            prompt("The lake", max_tokens=40, stop=["never written"]),
        ],
    )
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stops[0])]
    assert cut.completion_tokens < 40
    assert rest == whole
    assert other.completion_tokens == 40


def test_a_special_token_can_be_a_stop_string(checkpoint: Path, tmp_path: Path) -> None:
    """The tokens that end an instruction are given as text, by `Prefix.stop`."""
    forced = answer(teacher(_always(checkpoint, tmp_path, "<|end_header_id|>")), prompt("A", max_tokens=3))
    assert (forced.text, forced.finish_reason) == ("", "length")
    stopped = answer(
        teacher(_always(checkpoint, tmp_path, "<|end_header_id|>")),
        prompt("A", max_tokens=3, stop=["<|end_header_id|>"]),
    )
    assert (stopped.text, stopped.finish_reason, stopped.completion_tokens) == ("", "stop", 1)


@pytest.mark.parametrize(
    ("token", "named", "reason"),
    [("<|eot_id|>", [], "stop"), ("<|end_of_text|>", ["<|end_of_text|>"], "stop"), ("<|end_of_text|>", [], "length")],
    ids=["the template's and tokenizer's", "the checkpoint's", "no one's"],
)
def test_an_answer_ends_at_the_models_stop_tokens(
    checkpoint: Path, tmp_path: Path, token: str, named: list[str], reason: str
) -> None:
    folder = _always(checkpoint, tmp_path, token)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["eos_token_id"] = make_tokenizer().convert_tokens_to_ids(named)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    got = answer(teacher(folder), prompt("A"))
    assert (got.text, got.finish_reason, got.completion_tokens) == ("", reason, 1 if reason == "stop" else 12)


def test_how_the_checkpoint_would_draw_is_of_no_account(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "opinionated"
    shutil.copytree(checkpoint, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 9.0, "top_k": 2, "repetition_penalty": 50.0, "min_new_tokens": 30}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    requests = [prompt("The lake"), prompt("The lake", 1, temperature=1.0)]
    assert answers(teacher(folder), requests) == answers(teacher(checkpoint), requests)


def _always(checkpoint: Path, tmp_path: Path, token: str) -> Path:
    """A copy of the checkpoint that writes one token, whatever it is asked: all layers pass a constant through."""
    folder = tmp_path / "forced"
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    head = torch.zeros_like(model.lm_head.weight)
    head[make_tokenizer().convert_tokens_to_ids(token)] = 1.0
    model.lm_head.weight = torch.nn.Parameter(head)
    model.model.embed_tokens.weight = torch.nn.Parameter(torch.ones_like(head))
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.save_pretrained(folder)
    return folder


def test_conversations_go_through_the_template_with_one_bos(checkpoint: Path) -> None:
    rendered = render(
        _saved_template(checkpoint),
        ({"role": "user", "content": "Hei"},),
        make_tokenizer().special_tokens_map,
        add_generation_prompt=True,
    ).text
    raw = Request(prompt=rendered, sampling=Sampling(temperature=0.0, max_tokens=12))
    first, second = answers(teacher(checkpoint), [chat("Hei"), raw])
    assert first == second


@pytest.mark.parametrize(
    ("text", "reason"),
    [(BOS + BOS + "A", "two BOS: "), ("A", "no BOS: "), ("", "empty prompt")],
)
def test_a_prompt_without_exactly_one_bos_fails(checkpoint: Path, text: str, reason: str) -> None:
    request = Request(prompt=text, sampling=Sampling(temperature=0.0, max_tokens=2))
    failed, sound = answers(teacher(checkpoint), [request, prompt("A")])
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)
    assert isinstance(sound, Answer)


def test_a_template_that_refuses_fails_the_request(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(checkpoint, folder)
    refusal = "{% if messages[0]['content'] == 'no' %}{{ raise_exception('not this') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refusal + _saved_template(checkpoint), encoding="utf-8")
    refused, sound = answers(teacher(folder), [chat("no"), chat("yes")])
    assert isinstance(refused, Failed)
    assert refused.reason == "the chat template refuses the conversation: not this"
    assert isinstance(sound, Answer)


def test_the_context_bounds_prompt_and_answer(checkpoint: Path) -> None:
    """The tiny model has a context of 256 tokens, and `x` is one."""
    too_long, last, short = answers(
        teacher(checkpoint),
        [prompt("x" * 256, max_tokens=9), prompt("x" * 250, max_tokens=9), prompt("x", max_tokens=9)],
    )
    assert isinstance(too_long, Failed)
    assert too_long.reason == "prompt too long: 257 tokens, in a context of 256"
    assert (last.prompt_tokens, last.completion_tokens, last.finish_reason) == (251, 5, "length")
    assert short.completion_tokens == 9


def test_a_batch_that_is_too_big_for_the_memory_is_halved(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [prompt(text) for text in TEXTS]
    expected = answers(teacher(checkpoint), requests)
    generate = LlamaForCausalLM.generate
    sizes = []

    def scarce(self: LlamaForCausalLM, **options: Any) -> Any:
        sizes.append(len(options["input_ids"]))
        if sizes[-1] > 2 or options["input_ids"].shape[1] > 60:
            raise torch.OutOfMemoryError("not enough")
        return generate(self, **options)

    monkeypatch.setattr(LlamaForCausalLM, "generate", scarce)
    got = answers(teacher(checkpoint), requests)
    assert max(sizes) == len(requests)
    for had, wanted in zip(got, expected, strict=True):
        if wanted.prompt_tokens > 60:
            assert isinstance(had, Failed)
            assert had.reason.startswith("out of memory: ")
        else:
            assert had == wanted


def test_models_whose_rotary_embedding_changes_with_length_go_one_by_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "long"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] |= {"rope_type": "dynamic", "factor": 4.0}
    (folder / "config.json").write_text(json.dumps(config))
    generate = LlamaForCausalLM.generate
    sizes = []

    def watched(self: LlamaForCausalLM, **options: Any) -> Any:
        sizes.append(len(options["input_ids"]))
        return generate(self, **options)

    monkeypatch.setattr(LlamaForCausalLM, "generate", watched)
    answers(teacher(folder), [prompt(text) for text in TEXTS[:3]])
    assert sizes == [1, 1, 1]


def test_what_cannot_be_loaded_is_said(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.model: the folder .*/nowhere does not exist"):
        Local(teacher(tmp_path / "nowhere")).load()
    with pytest.raises(UserError, match=r"judge\.tokenizer: the folder .*/none does not exist"):
        Local(teacher(checkpoint, tokenizer=str(tmp_path / "none")), key="judge").load()
    pickled = tmp_path / "pickled"
    shutil.copytree(checkpoint, pickled)
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        Local(teacher(pickled)).load()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle"):
        Local(teacher(pickled)).load()
    # What the thread finds out reaches those who wait.
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle"):
        raise answer(teacher(pickled), prompt("A"))


def _endless(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that writes for minutes if it is let."""
    folder = _always(checkpoint, tmp_path, "Ġ")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1_000_000}))
    return folder


def test_closing_gives_up_what_is_being_written(checkpoint: Path, tmp_path: Path) -> None:
    async def interrupted() -> list[Any]:
        engine = Local(teacher(_endless(checkpoint, tmp_path), batch_size=1))
        engine.load()
        tasks = [asyncio.create_task(engine.complete(prompt(text, max_tokens=100_000))) for text in ("A", "B")]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in tasks)
        start = time.monotonic()
        await engine.close()
        assert time.monotonic() - start < 10.0
        return [*await asyncio.gather(*tasks, return_exceptions=True), engine]

    *given_up, engine = asyncio.run(interrupted())
    assert all(isinstance(one, Transient) for one in given_up)
    with pytest.raises(Transient):
        asyncio.run(engine.complete(prompt("A")))


def test_an_interrupted_process_ends(checkpoint: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a long answer, with nothing closed."""
    script = f"""
import asyncio, os, signal
from posttrain.data.generate.local import Local
from posttrain.data.generate.requests import Request
from posttrain.recipe.schema_generate import Sampling, Teacher

async def main():
    engine = Local(Teacher(engine="local", model={str(_endless(checkpoint, tmp_path))!r}, dtype="float32"))
    engine.load()
    asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGINT)
    await engine.complete(Request(prompt={BOS + "A"!r}, sampling=Sampling(max_tokens=100_000), seed=1))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr
    # 1 where a package that transformers imports has put its own hook in the place of Python's.
    assert done.returncode in (-signal.SIGINT, 1)


def test_a_batch_is_of_one_group_and_of_similar_sizes() -> None:
    seen: list[list[int]] = []

    def work(batch: list[int]) -> list[int | Exception]:
        seen.append(batch)
        return [ValueError("three") if item == 3 else item * 10 for item in batch]

    async def main() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(work, name="test", batch_size=3)
        items = [5, 100, 6, 3, 101, 7, 4]
        try:
            jobs = [batcher.submit(item, size=item, group=item > 50) for item in items]
            return await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            await batcher.close()

    results = asyncio.run(main())
    assert [result if isinstance(result, int) else str(result) for result in results] == [
        50,
        1000,
        60,
        "three",
        1010,
        70,
        40,
    ]
    assert sorted(map(sorted, seen)) == [[3, 7], [4, 5, 6], [100, 101]]


def test_what_was_cancelled_is_not_worked_on() -> None:
    seen: list[int] = []

    def work(batch: list[int]) -> list[int]:
        time.sleep(0.1)
        seen.extend(batch)
        return batch

    async def main() -> None:
        batcher: Batcher[int, int] = Batcher(work, name="test", batch_size=1, window=0.0)
        first = asyncio.create_task(batcher.submit(1, size=1))
        await asyncio.sleep(0.02)
        cancelled = asyncio.create_task(batcher.submit(2, size=1))
        last = asyncio.create_task(batcher.submit(3, size=1))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await first == 1
        assert await last == 3
        await batcher.close()

    asyncio.run(main())
    assert seen == [1, 3]
