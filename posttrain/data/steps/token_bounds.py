"""What can be said about the number of tokens of a text without encoding it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMPOSING = frozenset({"NFC", "NFKC"})  # normalisers that leave ASCII as it is
_CUTTING = frozenset({"Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"})


@dataclass(frozen=True)
class TokenBounds:
    """Bounds that hold for byte-level BPE, which writes each byte of UTF-8 as one sign and then only merges signs.

    So a text has at most as many tokens as bytes, and at least its bytes divided by those of the longest token. This
    needs that nothing adds text: no normaliser but Unicode composition, and then only of ASCII, which that leaves
    alone; no blank put in front; no fallback that spells a sign in several tokens.

    Attributes:
        upper: The number of tokens of a text is at most its bytes.
        ascii_only: That holds for ASCII only.
        longest: Bytes of the longest token, where the number of tokens is at least the text's bytes divided by it;
            None where that is not certain.
    """

    upper: bool = False
    ascii_only: bool = False
    longest: int | None = None

    @classmethod
    def of(cls, tokenizer_file: Path) -> TokenBounds:
        """Read what holds for a tokenizer from its `tokenizer.json`."""
        content = json.loads(tokenizer_file.read_text("utf-8"))
        normaliser = content.get("normalizer")
        steps = _flat(normaliser, "normalizers")
        model = content["model"]
        if not (
            model.get("type", "BPE") == "BPE"
            and not model.get("byte_fallback")
            and not model.get("continuing_subword_prefix")
            and not model.get("end_of_word_suffix")
            and all(step["type"] in _COMPOSING for step in steps)
            and _only_cuts(_flat(content.get("pre_tokenizer"), "pretokenizers"))
        ):
            return cls()
        return cls(upper=True, ascii_only=bool(steps), longest=_longest(content))

    def certainly_within(self, conversations: Sequence[Sequence[str]], limit: int) -> bool:
        """Tell whether each conversation is certain to have at most `limit` tokens."""
        return self.upper and all(
            (not self.ascii_only or all(text.isascii() for text in texts)) and _bytes(texts, limit) <= limit
            for texts in conversations
        )

    def certainly_beyond(self, conversations: Sequence[Sequence[str]], limit: int) -> bool:
        """Tell whether any conversation is certain to have more than `limit` tokens."""
        if self.longest is None:
            return False
        # A text has at least as many bytes as characters.
        return any(
            sum(map(len, texts)) > limit * self.longest and (not self.ascii_only or all(map(str.isascii, texts)))
            for texts in conversations
        )


def _bytes(texts: Sequence[str], limit: int) -> int:
    """Return the bytes of some texts, or a smaller number above the limit where that is quicker to know."""
    characters = sum(map(len, texts))
    if characters > limit or all(map(str.isascii, texts)):
        return characters
    return sum(len(text.encode()) for text in texts)


def _flat(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [step for inner in part[key] for step in _flat(inner, key)]
    return [part]


def _only_cuts(pre_tokenizers: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the text is cut, then written byte by byte, and nothing is added."""
    if not pre_tokenizers or pre_tokenizers[-1]["type"] != "ByteLevel":
        return False
    return not any(step.get("add_prefix_space") for step in pre_tokenizers) and all(
        step["type"] in _CUTTING for step in pre_tokenizers[:-1]
    )


def _longest(content: Mapping[str, Any]) -> int | None:
    """Return the bytes of the longest token, where every byte of a text is in some token.

    It is not where cutting removes text, where a byte is in no token, or where an added token takes the blanks beside
    it.
    """
    model, added = content["model"], content.get("added_tokens") or []
    cuts = _flat(content["pre_tokenizer"], "pretokenizers")
    removes = any(cut.get("behavior") == "Removed" or cut["type"] in ("Whitespace", "WhitespaceSplit") for cut in cuts)
    complete = sum(len(token) == 1 for token in model["vocab"]) >= 256
    if removes or not complete or model.get("unk_token") or any(token["lstrip"] or token["rstrip"] for token in added):
        return None
    # A token of the vocabulary has one sign a byte; an added one is written as it is.
    return max([*map(len, model["vocab"]), *(len(token["content"].encode()) for token in added)])
