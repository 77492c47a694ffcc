"""Which template a recipe means, and what is said when it cannot serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trl
from transformers import PreTrainedTokenizerFast

from posttrain.chat import Template, builtin_templates, end_of_turn_id, require_markers, resolve
from posttrain.chat.portable import portable
from posttrain.errors import UserError
from tests.chat.conftest import byte_level_tokenizer

STOCK = Path(trl.__file__).parent / "chat_templates"
# The form that SmolLM2's and Qwen2.5's templates share: a system block of the template's own where there is none.
OWN_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nI am a model.<|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def with_own(text: str | dict[str, str] | None) -> PreTrainedTokenizerFast:
    tokenizer = byte_level_tokenizer(["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    tokenizer.chat_template = text
    return tokenizer


@pytest.mark.parametrize("name", builtin_templates())
def test_a_built_in_name(name: str) -> None:
    template = resolve(name, None)
    assert template.name == name
    assert template.has_markers
    require_markers(template, "assistant")


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{# {% generation %} #}{% for m in messages %}ä{{ m.content }}{% endfor %}", encoding="utf-8")
    template = resolve(str(path), None)
    assert template == Template("mine.jinja", path.read_text(encoding="utf-8"), has_markers=False)


def test_the_tokenizers_own() -> None:
    for own in (OWN_SYSTEM, {"default": OWN_SYSTEM, "tool_use": "x"}):
        assert resolve("tokenizer", with_own(own)) == Template("tokenizer", OWN_SYSTEM, has_markers=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llama3.1", "the nearest is 'llama-3.1'"),
        ("chat-ml", "the nearest is 'chatml'"),
        ("tokeniser", "the nearest is 'tokenizer'"),
        ("nowhere/mine.jinja", "the file nowhere/mine.jinja does not exist"),
        ("mine.j2", "the file mine.j2 does not exist"),
        ("tokenizer", "the tokenizer has no chat template of its own; give one of chatml, llama-3.1, plain"),
    ],
)
def test_what_cannot_be_found(name: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        resolve(name, with_own(None))
    assert message in str(raised.value)


def test_invalid_jinja_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text("{{ bos_token }}\n{% for m in messages %}\n{{ m.content }\n{% endfor %}", encoding="utf-8")
    with pytest.raises(UserError, match=r"bad\.jinja is not valid Jinja: line 3"):
        resolve(str(path), None)


def advice(template: Template) -> str:
    with pytest.raises(UserError) as raised:
        require_markers(template, "assistant")
    return str(raised.value)


def test_missing_markers_name_the_built_in_that_renders_the_same() -> None:
    llama = Template("tokenizer", (STOCK / "llama3_1.jinja").read_text(encoding="utf-8"), has_markers=False)
    assert "the tokenizer's own chat template has no" in advice(llama)
    assert "'llama-3.1' renders the same and has them: set model.chat_template=llama-3.1" in advice(llama)
    for name in builtin_templates():
        unmarked = Template("mine.jinja", portable(resolve(name, None).text), has_markers=False)
        assert f"set model.chat_template={name}," in advice(unmarked)


def test_missing_markers_tell_of_a_system_block_of_its_own() -> None:
    said = advice(Template("tokenizer", OWN_SYSTEM, has_markers=False))
    assert "'chatml' has them and renders the same where a conversation has a system message" in said


def test_missing_markers_name_no_built_in_that_renders_otherwise() -> None:
    trimming = OWN_SYSTEM.replace("m['content'] +", "m['content'] | trim +")
    for text in (trimming, (STOCK / "phi3.jinja").read_text(encoding="utf-8"), "{{ raise_exception('no') }}"):
        said = advice(Template("other.jinja", text, has_markers=False))
        assert "in a copy" in said
        assert "model.chat_template=" not in said


def test_loss_on_all_needs_no_markers() -> None:
    require_markers(Template("own", OWN_SYSTEM, has_markers=False), "all")


@pytest.mark.parametrize(("name", "end"), [("llama-3.1", "<|eot_id|>"), ("chatml", "<|im_end|>"), ("plain", "</s>")])
def test_end_of_turn(tokenizers: dict[str, PreTrainedTokenizerFast], name: str, end: str) -> None:
    tokenizer, template = tokenizers[name], resolve(name, None)
    unmarked = Template(name, portable(template.text), has_markers=False)
    wanted = tokenizer.convert_tokens_to_ids(end)
    assert end_of_turn_id(tokenizer, template) == wanted
    assert end_of_turn_id(tokenizer, unmarked) == wanted


def test_end_of_turn_where_the_newline_is_marked_too(chatml_tokenizer: PreTrainedTokenizerFast) -> None:
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content + '<|im_end|>\n' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}"
    )
    template = Template("newline", text, has_markers=True)
    assert end_of_turn_id(chatml_tokenizer, template) == chatml_tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "writes nothing after the assistant's text"),
        ("{% for m in messages %}{{ m.content }} END.{% endfor %}", "none of its special ones"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not write out the assistant's text"),
        ("{{ raise_exception('never') }}", "refuses a plain exchange of a user and an assistant: never"),
    ],
)
def test_no_end_of_turn(chatml_tokenizer: PreTrainedTokenizerFast, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        end_of_turn_id(chatml_tokenizer, Template("bad.jinja", text, has_markers=False))


def test_importing_chat_loads_no_heavy_library() -> None:
    code = (
        "import sys, posttrain.chat; "
        "print([name for name in ('torch', 'transformers', 'jinja2', 'trl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
