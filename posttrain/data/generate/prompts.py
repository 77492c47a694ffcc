"""The prompts of the package, `data/prompts/LANGUAGE/NAME.jinja`, and texts put into them so that they stay apart."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import asset_folder
from posttrain.data.languages import language_code

if TYPE_CHECKING:
    from jinja2 import Template

FALLBACK = "en"
TAGS = ("system", "user", "assistant", "answer", "instruction", "conversation", "text")

_OPENED = re.compile(rf"<\W{{0,4}}(?:{'|'.join(TAGS)})(?:-([0-9]*))?")
_UNSEEN = re.compile(r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]+")  # blanks, and characters without a width


@dataclass(frozen=True)
class Prompt:
    """A prompt as it is in one file.

    Attributes:
        name: Of the file, without `.jinja`.
        language: Of the file: English where the language asked for has none of its own.
        text: The Jinja source, which belongs to the fingerprint of whatever uses it.
    """

    name: str
    language: str
    text: str

    def render(self, **values: Any) -> str:
        """Fill the prompt in.

        A template has, besides the values, `quote(text, tag)`, which writes a text between an opening and a closing
        tag on lines of their own, and `tag(name)`, which writes the opening tag, to speak of it. Where any of the
        values holds something that reads like one of `TAGS`, all tags get a number that none of the values holds, as
        in `<answer-2>`. So a text can neither close the tag that it is in nor open another, and it stays as it is.
        Special tokens of the model's own chat template are not looked at: that is the tokenizer's affair.

        Raises:
            jinja2.UndefinedError: The template uses a value that is not given.
            ValueError: It uses a tag that is not among `TAGS`.
        """
        number = _free_number(_texts(values))

        def tag(name: str, opening: str = "<") -> str:
            if name not in TAGS:
                raise ValueError(
                    f"{self.language}/{self.name}.jinja uses the tag {name!r}; there are {', '.join(TAGS)}"
                )
            return f"{opening}{name}{number}>"

        def quote(text: str, name: str) -> str:
            return f"{tag(name)}\n{text}\n{tag(name, '</')}"

        return _compile(self.text).render(**values, tag=tag, quote=quote).strip()


def prompt(name: str, language: str) -> Prompt:
    """Return a prompt in a language, in English where it has no text in that language.

    `Prompt.language` says which it is; a rollout notes it in the row's metadata where it is not the row's language.

    Args:
        name: Of the file, without `.jinja`.
        language: As a row has it: an ISO code, or `und`.

    Raises:
        ValueError: There is no such prompt.
    """
    return _load(asset_folder("data") / "prompts", name, language_code(language))


def prompt_texts(names: Iterable[str]) -> dict[str, str]:
    """Return the text of each prompt in all its languages, by `LANGUAGE/NAME.jinja`, sorted.

    All languages, because a row says which is used, and a language that gets a prompt of its own changes what is
    asked. A template includes no other, so that these texts are all there is.

    Raises:
        ValueError: There is no such prompt.
    """
    folder = asset_folder("data") / "prompts"
    texts: dict[str, str] = {}
    for name in set(names):
        _load(folder, name, FALLBACK)
        for path in folder.glob(f"*/{name}.jinja"):
            texts[f"{path.parent.name}/{path.name}"] = path.read_text(encoding="utf-8")
    return dict(sorted(texts.items()))


@lru_cache(maxsize=1024)
def _load(folder: Path, name: str, language: str) -> Prompt:
    for candidate in (language, FALLBACK):
        path = folder / candidate / f"{name}.jinja"
        if path.is_file():
            return Prompt(name, candidate, path.read_text(encoding="utf-8"))
    raise ValueError(f"there is no prompt {name!r}: data/prompts/{FALLBACK}/{name}.jinja does not exist")


@lru_cache(maxsize=1024)
def _compile(text: str) -> Template:
    from jinja2 import Environment, StrictUndefined

    # Without a loader `include` and `extends` fail, see `prompt_texts`. Not HTML: nothing may be escaped.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return environment.from_string(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


def _free_number(texts: Iterable[str]) -> str:
    """Return what to write after the name of every tag so that none of the texts holds one: nothing, `-2`, `-3`, ..."""
    taken: set[str] = set()
    for text in texts:
        # As a model might read it: `</ Answer >`, full-width signs, a soft hyphen within the name.
        folded = _UNSEEN.sub("", unicodedata.normalize("NFKC", text).casefold())
        taken.update(found[1] or "" for found in _OPENED.finditer(folded))
    if not taken:
        return ""
    # A number counts as taken where a longer one begins with it; eight digits are more than any text can take.
    starts = {digits[:length] for digits in taken for length in range(1, 9)}
    return next(f"-{number}" for number in itertools.count(2) if str(number) not in starts)
