"""Synthetic rows shaped like the reference mixture: half English, half Finnish, about 2 kB each, with every fault."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from posttrain.assets import locate

# Shares of the reference: English and Finnish answers to the Tulu 3 prompts, multi-turn Magpie, translations.
SHARES = {"tulu3-en": 0.53, "tulu3-fi": 0.455, "magpie": 0.013, "europarl": 0.002}
FAULTS = {"exact": 0.01, "near": 0.02, "contaminated": 0.002, "repetitive": 0.005, "refusal": 0.005, "language": 0.01}
PROMPT_WORDS, ANSWER_WORDS = 60, 220  # mean, log-normal


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text.lower())


def _english() -> list[str]:
    """Return the words of Python's own documentation, about 100,000 of 6,000 kinds."""
    return _words(" ".join(topics.values()))


def _finnish() -> list[str]:
    """Return the words of the package's Finnish text, and the longer ones with the endings of several cases."""
    words = _words(Path(locate("builtin:text/fi.txt")).read_text(encoding="utf-8"))
    stems = sorted({word for word in words if len(word) > 5})
    endings = ("kin", "kaan", "ko", "ssa", "sta", "lla", "lle", "ksi", "ni", "si", "nsa", "mme")
    return words + [stem + ending for stem in stems for ending in endings for _ in range(2)]


class Writer:
    """Writes text of one language: words drawn by their frequency, in sentences."""

    def __init__(self, language: str, seed: int) -> None:
        self._words = _english() if language == "en" else _finnish()
        self._random = random.Random(f"{language}{seed}")

    def text(self, mean: int) -> str:
        """Write about `mean` words."""
        count = max(3, min(int(self._random.lognormvariate(0.0, 0.6) * mean * 0.83), 12 * mean))
        words = self._random.choices(self._words, k=count)
        sentences = []
        at = 0
        while at < count:
            length = self._random.randint(6, 18)
            sentences.append(" ".join(words[at : at + length]).capitalize() + ".")
            at += length
        paragraph = self._random.randint(3, 6)
        return "\n\n".join(" ".join(sentences[i : i + paragraph]) for i in range(0, len(sentences), paragraph))

    def altered(self, text: str) -> str:
        """Return a text with one word in forty replaced: nearly the same."""
        words = text.split(" ")
        for at in range(0, len(words), 40):
            words[at] = self._random.choice(self._words)
        return " ".join(words)


def rows(count: int, seed: int, eval_prompts: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with the name of the file it belongs to."""
    shuffler = random.Random(seed)
    writers = {language: Writer(language, seed) for language in ("en", "fi")}
    prompts: dict[str, list[str]] = {"en": [], "fi": []}
    for number in range(count):
        name = shuffler.choices(list(SHARES), list(SHARES.values()))[0]
        language = "fi" if name == "tulu3-fi" else "en"
        writer = writers[language]
        if name == "europarl":
            pair = {each: writers[each].text(20).replace("\n\n", " ") for each in ("en", "fi")}
            yield name, {"translation": pair}
            continue
        prompt, answer = writer.text(PROMPT_WORDS), writer.text(ANSWER_WORDS)
        kind = shuffler.choices(["", *FAULTS], [1 - sum(FAULTS.values()), *FAULTS.values()])[0]
        if kind in ("exact", "near") and prompts[language]:
            prompt = shuffler.choice(prompts[language])
            prompt = prompt.upper() if kind == "exact" else writer.altered(prompt)
        elif kind == "contaminated":
            prompt = f"{prompt}\n\n{shuffler.choice(eval_prompts)}"
        elif kind == "repetitive":
            answer = " ".join([writer.text(12)] * 25)
        elif kind == "refusal":
            answer = "I'm sorry, but I can't help with that."
        elif kind == "language":
            answer = writers["en" if language == "fi" else "fi"].text(ANSWER_WORDS)
        if len(prompts[language]) < 5000:
            prompts[language].append(prompt)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        if name == "magpie":
            turns += [{"role": "user", "content": writer.text(20)}, {"role": "assistant", "content": writer.text(150)}]
            conversation = [{"from": {"user": "human"}.get(t["role"], "gpt"), "value": t["content"]} for t in turns]
            yield name, {"conversations": conversation, "conversation_id": str(number)}
        else:
            yield name, {"id": str(number), "messages": turns, "source": f"ai2-adapt-dev/{number % 15}"}


def write(folder: Path, count: int, seed: int = 1) -> dict[str, Path]:
    """Write the rows and an evaluation set; return the files by name, the set as `eval`."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer("en", seed + 1)
    eval_prompts = [writer.text(30) for _ in range(600)]
    files = {name: folder / f"{name}.jsonl" for name in (*SHARES, "eval")}
    streams = {name: path.open("w", encoding="utf-8") for name, path in files.items()}
    try:
        for prompt in eval_prompts:
            streams["eval"].write(json.dumps({"prompt": prompt}) + "\n")
        for name, row in rows(count, seed, eval_prompts):
            streams[name].write(json.dumps(row, ensure_ascii=False) + "\n")
    finally:
        for stream in streams.values():
            stream.close()
    return files
