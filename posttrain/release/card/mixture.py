"""The data section of a card: rows, shares and licences of what was trained on, and who wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posttrain.data.report.settings import in_words
from posttrain.data.report.terms import UNSTATED, Terms, all_terms, commercial_use, set_name
from posttrain.data.report.words import count, percent, readable_language, several
from posttrain.data.rows import SEVERAL_LANGUAGES, UNKNOWN_LANGUAGE
from posttrain.release.card.inputs import CardInputs, Values
from posttrain.release.card.paths import HUB_ID, shown_path, without_folders
from posttrain.release.card.text import NOT_MEASURED, code, language_name, plain, table

TOKENISED = {"sft": "tokenize-sft", "preference": "tokenize-preference"}
_HEAD = (
    "Source",
    "Read from",
    "Licence of the rows",
    "Languages",
    "Rows",
    "Share of rows",
    "Share of trained tokens",
    "Held out",
)


def own_summary(inputs: CardInputs) -> Values | None:
    """Return `data/summary.json` with only the sets that this model was trained on, or None."""
    if inputs.summary is None or not inputs.sets:
        return None
    sets = {name: inputs.summary["sets"][name] for name in inputs.sets if name in inputs.summary["sets"]}
    return {**inputs.summary, "sets": sets} if sets else None


def mixture(inputs: CardInputs) -> dict[str, Any] | None:
    """Return what the section of a card says, or None where nothing is known of any rows."""
    summary, texts = own_summary(inputs), _texts(inputs)
    if summary is None and texts is None:
        return None
    found: dict[str, Any] = {"texts": texts, "sets": [], "written": _written(inputs)}
    if summary is not None:
        terms = all_terms(summary)
        settings = summary.get("settings") or {}
        found |= {
            "sets": [_set(inputs, kind, part) for kind, part in summary["sets"].items()],
            "terms": [(plain(each.id), each) for each in terms],
            "verdict": plain(commercial_use(terms)[1]),
            "settings": [(name, plain(words)) for name, words in in_words(settings)],
            "uncompared": not settings.get("decontaminate"),
        }
    return found


def licences(inputs: CardInputs) -> list[Terms]:
    """Return the terms of the rows that this model was trained on."""
    summary = own_summary(inputs)
    return all_terms(summary) if summary is not None else []


def languages(inputs: CardInputs) -> list[str]:
    """Return the codes of the languages that the card names: those given, or else those of the training data."""
    if inputs.languages is not None:
        return sorted(set(inputs.languages))
    found = {code for source in _sources(inputs) for code in source["languages"]}
    found |= {str(text["language"]) for text in _text_entries(inputs) if text.get("language")}
    return sorted(found - {UNKNOWN_LANGUAGE, SEVERAL_LANGUAGES})


def datasets(inputs: CardInputs) -> list[str]:
    """Return the hub ids of the data sets that the model was trained on, or that its rows were written from."""
    paths = {
        source["provenance"]["path"]
        for source in _sources(inputs)
        if source["source"] != "generated" and not source["provenance"].get("files")
    }
    paths |= {
        str(entry["source"]["path"])
        for entry in _generated(inputs)
        if isinstance(entry.get("source"), Mapping) and entry["source"].get("path")
    }
    provenance = [each for stage in ("tokenize-cpt", "cpt") for each in _provenance(inputs, stage)]
    paths |= {str(each["path"]) for each in provenance if each.get("revision")}
    return sorted(path for path in paths if HUB_ID.fullmatch(path))


def _provenance(inputs: CardInputs, stage: str) -> Sequence[Values]:
    return list(inputs.manifests.get(stage, {}).get("sources") or ()) if "cpt" in inputs.stages else []


def _sources(inputs: CardInputs) -> list[Values]:
    summary = own_summary(inputs)
    return [source for part in summary["sets"].values() for source in part["sources"]] if summary is not None else []


def _set(inputs: CardInputs, kind: str, part: Values) -> dict[str, Any]:
    tokens = dict(inputs.manifests.get(TOKENISED[kind], {}).get("metrics", {}).get("sources") or {})
    return {
        "name": set_name(kind),
        "train": count(part["train"]),
        "validation": count(part["validation"]),
        "rejected": count(part["rejected"]),
        "table": table(_HEAD, [_source_row(source, part, tokens) for source in part["sources"]], numbers_from=4),
        "unit": "answers of both kinds" if kind == "preference" else "tokens with a loss",
        "repeats": any(source["train_repeats"] for source in part["sources"]),
    }


def _source_row(source: Values, part: Values, tokens: Mapping[str, Values]) -> list[str]:
    train = source["train"] + source["train_repeats"]
    total = sum(source["licenses"].values())
    of = [
        ("not stated" if name == UNSTATED else plain(name)) + (f" ({percent(rows, total)})" if rows < total else "")
        for name, rows in source["licenses"].items()
    ]
    spoken = [_language(found) for found in source["languages"]]
    share = tokens.get(source["name"], {}).get("trained_token_share")
    return [
        plain(source["name"]),
        "written for this set" if source["source"] == "generated" else shown_path(source["provenance"]),
        several(of) or NOT_MEASURED,
        several(spoken) or NOT_MEASURED,
        count(train),
        percent(train, part["train"]),
        NOT_MEASURED if share is None else percent(share, 1),
        count(source["validation"]),
    ]


def _language(found: str) -> str:
    return readable_language(found) if found in (UNKNOWN_LANGUAGE, SEVERAL_LANGUAGES) else language_name(found)


def _text_entries(inputs: CardInputs) -> list[Values]:
    if "cpt" not in inputs.stages:
        return []
    return list((inputs.manifests["cpt"]["recipe"].get("cpt") or {}).get("text") or ())


def _texts(inputs: CardInputs) -> str | None:
    """Return a table of the texts that the base was pretrained on, with the shares that came out, or None."""
    entries = _text_entries(inputs)
    if not entries:
        return None
    metrics = inputs.manifests["cpt"].get("metrics") or {}
    head, lines = ["Text", "Licence", "Language", "Share of tokens", "Tokens", "Times read"], []
    for index, text in enumerate(entries):
        share, tokens = metrics.get(f"{index}/realised_share"), metrics.get(f"{index}/trained_tokens")
        epochs = metrics.get(f"{index}/epochs")
        lines.append(
            [
                shown_path(text),
                plain(text.get("license") or "not stated"),
                language_name(str(text["language"])) if text.get("language") else NOT_MEASURED,
                NOT_MEASURED if share is None else percent(share, 1),
                NOT_MEASURED if tokens is None else count(tokens),
                NOT_MEASURED if epochs is None else f"{epochs:.2f}",
            ]
        )
    if not any(f"{index}/realised_share" in metrics for index in range(len(entries))):  # shuffled together, whole
        head, lines = head[:3], [line[:3] for line in lines]
    return table(head, lines, numbers_from=3)


def _generated(inputs: CardInputs) -> Iterator[Values]:
    """Yield the entries of `generate` whose rows the model was trained on, and those they were made from."""
    entries = {
        str(entry.get("name")): entry
        for entry in inputs.manifests.get("generate", {}).get("recipe", {}).get("generate") or ()
    }
    wanted = [_last(source["provenance"]["path"]) for source in _sources(inputs) if source["source"] == "generated"]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop(0)
        if name in entries and name not in seen:
            seen.add(name)
            yield entries[name]
            wanted += [str(entries[name]["rows_from"])] if entries[name].get("rows_from") else []


def _last(path: object) -> str:
    return str(path).rstrip("/").rpartition("/")[2]


def _written(inputs: CardInputs) -> list[str]:
    """Say which rows were written by which models."""
    recipe = inputs.manifests.get("generate", {}).get("recipe", {})
    names = {role: (recipe.get(role) or {}).get("model") for role in ("teacher", "judge", "reward")}
    lines = []
    for entry in _generated(inputs):
        by = names["teacher"]
        text = f"{code(entry.get('name'))} (`{entry.get('rollout')}`)"
        lines.append(f"{text}: written by {plain(without_folders(by))}" if by else text)
    if lines and names["judge"]:
        lines.append(f"Rated by {plain(without_folders(names['judge']))}")
    if lines and names["reward"]:
        lines.append(f"Chosen by the reward model {plain(without_folders(names['reward']))}")
    return lines
