"""The text before a user's turn: derived from the chat template, for every template that takes plain text."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trl
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from posttrain.chat import builtin_templates, render
from posttrain.data.generate.models import load_tokenizer
from posttrain.data.generate.prefix import Prefix
from posttrain.data.rows import Message
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Teacher

STOCK = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
# Templates of vision models, whose turns are lists of parts, or trimmed and capitalised.
NOT_TEXT = ("idefics3", "llava_next", "smolvlm")
TEXTUAL = [path for path in STOCK if not path.stem.startswith(NOT_TEXT)] + list(builtin_templates().values())
NO_SYSTEM = ("gemma", "gemma_training")
MARKUP = re.compile(
    r"<[|｜][^<>|｜\s'\"]+[|｜]>|<\|?turn\|?>|</?(?:start_of_turn|end_of_turn|sop|think|s)>|\[gMASK\]|\[/?INST\]"
)
SMOLLM2 = os.environ.get("POSTTRAIN_SMOLLM2", "")
TURNS: list[Message] = [{"role": "user", "content": "Missä vene on?"}, {"role": "assistant", "content": "Järvellä."}]
INSTRUCTION = "Write a haiku\n\nabout lakes, & <b>boats</b>."


def make(template: str, *, bos: str | None = "<BOS>", adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that knows a template's markup."""
    special = [*([bos] if bos else []), "<EOS>", *sorted(set(MARKUP.findall(template)) - {bos})]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" What is a lake? Write a haiku user assistant"] * 3, trainer)
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(str(bos), core.token_to_id(str(bos)))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<EOS>", **({"bos_token": bos} if bos else {}))
    tokenizer.chat_template = template
    return tokenizer


def rendered(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> str:
    return render(str(tokenizer.chat_template), messages, tokenizer.special_tokens_map).text


@pytest.mark.parametrize("system", [None, "Olet ystävällinen."], ids=["no system prompt", "system prompt"])
@pytest.mark.parametrize("path", TEXTUAL, ids=lambda path: path.stem)
def test_prefix_and_instruction_begin_the_rendered_conversation(path: Path, system: str | None) -> None:
    tokenizer = make(path.read_text(encoding="utf-8"))
    if system is not None and path.stem in NO_SYSTEM:
        with pytest.raises(UserError, match="refuses a conversation with a system prompt"):
            Prefix.of(tokenizer, system)
        return
    prefix = Prefix.of(tokenizer, system)
    opening: list[Message] = [{"role": "system", "content": system}] if system else []
    for turns in ([], TURNS, TURNS * 2):
        messages = [*opening, *turns, {"role": "user", "content": INSTRUCTION}]
        before = prefix.before(turns)
        assert rendered(tokenizer, messages).startswith(before + INSTRUCTION)
        # What follows the instruction, whoever writes it, holds the first stop string before anything but blanks.
        answered = rendered(tokenizer, [*messages, {"role": "assistant", "content": "Vesi."}])
        assert answered.startswith(before + INSTRUCTION)
        assert answered.removeprefix(before + INSTRUCTION).lstrip(" ").startswith(prefix.stop[0])
        # Tokenised by itself it is what begins the conversation's tokens, with one BOS or none.
        ids = tokenizer(before, add_special_tokens=False)["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == before.count("<BOS>") <= 1
        assert tokenizer(before + INSTRUCTION, add_special_tokens=False)["input_ids"][: len(ids)] == ids
    assert prefix.stop[-1] == "<EOS>"


@pytest.mark.parametrize("path", [path for path in STOCK if path not in TEXTUAL], ids=lambda path: path.stem)
def test_templates_that_do_not_take_plain_text_are_refused(path: Path) -> None:
    with pytest.raises(UserError, match="teacher: chat template: it "):
        Prefix.of(make(path.read_text(encoding="utf-8")), None)


def test_llama_by_hand() -> None:
    text = builtin_templates()["llama-3.1"].read_text(encoding="utf-8")
    prefix = Prefix.of(make(text, bos="<|begin_of_text|>", adds_bos=True), "Be brief.")
    head = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
    )
    user = "<|start_header_id|>user<|end_header_id|>\n\n"
    assert prefix.before([]) == head + user
    assistant = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert prefix.before(TURNS) == f"{head}{user}Missä vene on?<|eot_id|>{assistant}Järvellä.<|eot_id|>{user}"
    assert prefix.stop == ("<|eot_id|>", "<|start_header_id|>", "<EOS>")
    assert prefix.default_system is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("chatml", None),
        ("plain", None),
        ("llama-3.1", "system Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"),
    ],
)
def test_what_a_template_says_by_itself_is_reported(template: str, said: str | None) -> None:
    tokenizer = make(builtin_templates()[template].read_text(encoding="utf-8"))
    assert Prefix.of(tokenizer, None).default_system == said


def test_tokens_that_end_alike_are_not_taken_for_the_same() -> None:
    """Before the first turn stands `<BOS>`, before the second `<EOS>`."""
    text = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    assert Prefix.of(make(text + "{# <|user|> <|assistant|> #}"), None).default_system is None


def test_a_blank_that_belongs_to_the_first_word_is_left_out() -> None:
    text = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = make(text)
    prefix = Prefix.of(tokenizer, None)
    assert prefix.before([]) == "<BOS>[INST]"
    assert prefix.stop == ("[/INST]", "<EOS>")
    # Where a blank is a token of its own it stays.
    core = tokenizer.backend_tokenizer
    core.normalizer = normalizers.Replace(" ", "▁")
    core.add_special_tokens(["▁"])
    assert Prefix.of(tokenizer, None).before([]) == "<BOS>[INST] "


def test_text_between_turns_is_the_stop_string_where_no_token_is() -> None:
    text = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    prefix = Prefix.of(make(text), None)
    assert prefix.stop == ("\n\nAssistant:", "<EOS>")
    assert prefix.before([]) == "<BOS>User:"


@pytest.mark.parametrize(
    ("template", "adds_bos", "reason"),
    [
        ("{{ bos_token }}{{ bos_token }}TURNS", False, "two BOS: "),
        ("{{ bos_token }}{{ bos_token }}TURNS", True, "two BOS: "),
        ("TURNS", True, "no BOS: "),
        ("TURNS{{ bos_token }}", True, "no BOS: "),
    ],
)
def test_a_prefix_without_exactly_one_bos_is_refused(template: str, adds_bos: bool, reason: str) -> None:
    turns = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    with pytest.raises(UserError, match=f"teacher: chat template: .* begins wrongly, {reason}"):
        Prefix.of(make(template.replace("TURNS", turns), adds_bos=adds_bos), None)


def test_no_bos_is_right_where_neither_template_nor_tokenizer_has_one() -> None:
    chatml = builtin_templates()["chatml"].read_text(encoding="utf-8")
    for tokenizer in (make(chatml), make(chatml, bos=None), make(chatml, bos="<|im_start|>")):
        prefix = Prefix.of(tokenizer, None)
        assert prefix.before([]) == "<|im_start|>user\n"
        assert prefix.stop == ("<|im_end|>", "<|im_start|>", "<EOS>")


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", None, "a user's text as it is"),
        ("{% for m in messages %}{{ m['content'] | e }}{% endfor %}", None, "a user's text as it is"),
        ("{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", None, "a user's text as it is, and once"),
        ("{{ messages[-1]['content'] }}", None, "a user's text as it is"),
        (
            "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{{ eos_token }}{% endfor %}",
            "Be brief.",
            "does not write out the system prompt",
        ),
        ("{{ raise_exception('no') }}", None, "refuses"),
        ("{% for m in %}", None, "not valid Jinja"),
        (None, None, "has no chat template"),
    ],
)
def test_templates_from_which_no_prefix_follows_are_refused(
    template: str | None, system: str | None, message: str
) -> None:
    tokenizer = make(template or "")
    if template is None:
        tokenizer.chat_template = None
    with pytest.raises(UserError, match=message) as caught:
        Prefix.of(tokenizer, system, key="judge")
    assert all(problem.startswith("judge: ") for problem in caught.value.problems)


@pytest.mark.skipif(not SMOLLM2, reason="POSTTRAIN_SMOLLM2 names no folder with SmolLM2-Instruct")
def test_smollm2() -> None:
    tokenizer = load_tokenizer(Teacher(engine="local", model=SMOLLM2))
    prefix = Prefix.of(tokenizer, None)
    said = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert prefix.default_system == f"system\n{said}"
    assert prefix.before([]) == f"<|im_start|>system\n{said}<|im_end|>\n<|im_start|>user\n"
    assert prefix.stop == ("<|im_end|>", "<|im_start|>")
    own = Prefix.of(tokenizer, "Olet ystävällinen.")
    assert own.default_system is None
    assert own.before(TURNS).startswith("<|im_start|>system\nOlet ystävällinen.<|im_end|>\n<|im_start|>user\nMissä")
    assert own.before(TURNS).endswith("assistant\nJärvellä.<|im_end|>\n<|im_start|>user\n")
