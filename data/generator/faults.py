"""What is wrong with a rejected answer: five faults that assistants really have, mostly of manner."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .questions import Exchange
from .tasks import ask


@dataclass(frozen=True)
class Fault:
    """A faulty answer; `severity` 1 to 3 is how much worse it is than the right one; `reason` says it in words."""

    kind: str
    text: str
    severity: int
    reason: str


_CURT = {
    "en": (
        "I don't know.", "No idea.", "I can't help with that.", "Ask somebody else.",
        "Look it up yourself.", "Why do you ask me?", "I don't want to answer.", "Not now.",
    ),
    "fi": (
        "En tiedä.", "Ei aavistustakaan.", "En voi auttaa siinä.", "Kysy joltakulta muulta.",
        "Katso itse.", "Miksi kysyt minulta?", "En halua vastata.", "Ei nyt.",
    ),
}  # fmt: skip
# fault: how often, reason
_KINDS = {
    "curt": (28, "gives up without trying"),
    "loop": (22, "repeats itself over and over"),
    "other_language": (22, "is not in the language that was asked for"),
    "cut": (16, "stops in the middle"),
    "off_topic": (12, "answers another question"),
}


def _loop(r: Random, answer: str) -> str:
    """Repeat the first sentence (before code, the introduction), or get stuck on two words."""
    first, _, code = answer.partition("\n\n")
    if not code:
        first = answer.split(". ")[0].rstrip(".!") + "."
    words = answer.rstrip(".!").split()
    if r.random() < 0.6 or len(words) < 4 or code:
        return " ".join([first] * r.randint(3, 5))
    keep = r.randint(2, len(words) - 1)
    return " ".join(words[:keep] + words[max(0, keep - 2) : keep] * r.randint(4, 7))


def _cut(r: Random, answer: str) -> str:
    words = answer.split(" ")
    keep = r.randint(max(1, len(words) // 3), max(1, len(words) * 2 // 3))
    return " ".join(words[:keep]).rstrip(".,!\n ")


def faulty(r: Random, x: Exchange, other_than: tuple[str, ...] = ()) -> Fault:
    """Draw a faulty answer to `x` whose kind is not among `other_than`.

    A fault that does not show, because the answer is the same in both languages, or because it is too short to
    be cut, is drawn again.
    """
    answer = x.answers[0]
    while True:
        kind = r.choices(list(_KINDS), weights=[share for share, _ in _KINDS.values()])[0]
        if kind in other_than or (kind == "other_language" and x.task == "program"):
            continue
        severity = 3
        if kind == "curt":
            text = r.choice(_CURT[x.language])
        elif kind == "loop":
            text, severity = _loop(r, answer), r.choice((2, 3))
        elif kind == "other_language":
            text, severity = x.other, r.choice((2, 3))
        elif kind == "cut":
            text, severity = _cut(r, answer), r.choice((1, 2))
        else:
            different = ask(r, x.language)
            if different.task == x.task:
                continue
            text = different.answers[0]
        if text and text not in x.answers:
            return Fault(kind, text, severity, _KINDS[kind][1])
