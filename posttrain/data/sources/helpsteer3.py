"""nvidia/HelpSteer3, preference subset: two responses to one context, compared by up to three annotators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.data.languages import language_code
from posttrain.data.rows import UNKNOWN_LANGUAGE, BadRow, PreferenceRow, Refused, preference_row
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.data.sources.fields import convert_each, read_turns, row_license

DOMAINS = ("general", "stem", "code", "multilingual")
COLUMNS = ("domain", "context", "response1", "response2", "overall_preference")
LICENSE = "CC-BY-4.0"
STRONGEST = 3  # overall_preference runs from -3, response 1 much better, to 3, response 2 much better


@dataclass(frozen=True, kw_only=True)
class HelpSteer3(Source):
    """Pairs of the named domains (all where none is named) whose preference is at least `min_margin` strong."""

    domains: list[str] | None = None
    ties: Literal["drop"] = "drop"
    min_margin: int = 1


def check(options: HelpSteer3) -> list[str]:
    """Find domains that the dataset does not have, and margins that no pair reaches."""
    unknown = [domain for domain in options.domains or [] if domain not in DOMAINS]
    problems = [f"domains: {domain!r} is not one of {', '.join(DOMAINS)}" for domain in unknown]
    if not 1 <= options.min_margin <= STRONGEST:
        problems.append(f"min_margin: {options.min_margin} is not between 1 and {STRONGEST}")
    return problems


def row_language(domain: str, language: Any) -> str:
    """Return the code of a row's natural language; for code the column names a programming language instead."""
    return UNKNOWN_LANGUAGE if domain == "code" else language_code(language)


def to_preference(records: Iterable[Record], options: HelpSteer3, start: int) -> Iterator[PreferenceRow | Refused]:
    """Convert records to preference rows; `margin` is the size of `overall_preference`."""
    return convert_each(records, start, lambda record, unit: _convert(record, options, unit))


def _convert(record: Record, options: HelpSteer3, unit: int) -> PreferenceRow:
    if missing := [column for column in COLUMNS if column not in record]:
        raise BadRow(f"missing column: {', '.join(missing)}")
    domain = record["domain"]
    if domain not in DOMAINS:
        raise BadRow(f"unknown domain: {domain!r}")
    if options.domains and domain not in options.domains:
        raise BadRow(f"domain not selected: {domain}")
    preference = record["overall_preference"]
    if isinstance(preference, bool) or not isinstance(preference, (int, float)) or not float(preference).is_integer():
        raise BadRow(f"overall_preference is not a whole number: {preference!r}")
    if abs(preference) > STRONGEST:
        raise BadRow(f"overall_preference out of range: {preference!r}, expected -{STRONGEST} to {STRONGEST}")
    if preference == 0:
        raise BadRow("tie")
    if abs(preference) < options.min_margin:
        raise BadRow(f"margin below min_margin: {abs(preference)}")
    better, worse = ("response1", "response2") if preference < 0 else ("response2", "response1")
    return preference_row(
        read_turns(record["context"]),
        record[better],
        record[worse],
        margin=float(abs(preference)),
        source=options.label,
        language=row_language(domain, record.get("language")),
        license=row_license(options, record, LICENSE),
        meta={"domain": domain, "language": record.get("language"), "row": unit, "chosen": better},
        units=(unit,),
    )


KIND = SourceKind(name="helpsteer3", options=HelpSteer3, to_preference=to_preference, license=LICENSE, check_own=check)
