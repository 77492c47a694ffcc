"""`rate`: a judge gives the last answer of each row points for its quality, its fluency, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.ratings import RATING_SCHEMA, parse_score, parse_structured
from posttrain.data.generate.requests import Answer, Asker, Failed, Request
from posttrain.data.generate.rollouts.again import ask_again
from posttrain.data.generate.rollouts.together import together
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.data.languages import language_code
from posttrain.data.rows import Message
from posttrain.recipe.schema_generate import Rate, Sampling

RETRY_TEMPERATURE = 0.7  # of a judge that is asked again


def rate(options: Rate, seed: int) -> Rollout:
    """Return the rollout of a `rate` entry.

    The messages stay as they are. The metadata get each scale's rating, None where there is none, and under `unrated`
    the scales without; `prompt_language` where the judge was asked in another language than the row's, for want of a
    prompt in that one. A row fails for being below a minimum, for being unrated where one is asked for, and with the
    judge's own reason where a request failed for good.

    Args:
        options: The entry, in which `problems_of_rate` finds nothing.
        seed: The recipe's.
    """
    minima = {"quality": options.min_quality, "fluency": options.min_fluency}

    async def rollout(row: InputRow, asker: Asker) -> Outcome:
        if not row.messages or row.messages[-1]["role"] != "assistant":
            return Outcome(failed="no answer to rate: the last turn is not the assistant's")
        results = await together(
            rated(
                asker,
                row.messages,
                row.language,
                scale,
                sampling=options.sampling,
                retries=options.retries,
                seed=seed,
                row_id=row.id,
                purpose=f"rate {scale}",
            )
            for scale in options.scales
        )
        ratings: dict[str, float | None] = {
            scale: None if isinstance(found, Failed) else found
            for scale, found in zip(options.scales, results, strict=True)
        }
        meta: dict[str, Any] = {
            **ratings,
            "unrated": [scale for scale, rating in ratings.items() if rating is None],
            **prompt_language(options.scales, row.language),
        }
        failures = [found.reason for found in results if isinstance(found, Failed)]
        for scale, rating in ratings.items():
            minimum = minima[scale]
            if minimum is not None and rating is None:
                failures.append(f"unrated: {scale}")
            elif minimum is not None and rating is not None and rating < minimum:
                failures.append(f"{scale} below min_{scale}: {rating:g}")
        if failures:
            return Outcome(meta=meta, failed=failures[0])
        return Outcome(messages=list(row.messages), meta=meta)

    return rollout


async def rated(
    asker: Asker,
    messages: Sequence[Message],
    language: str,
    scale: str,
    *,
    sampling: Sampling,
    retries: int,
    seed: int,
    row_id: str,
    purpose: str,
) -> float | None:
    """Return the judge's rating of the last turn, 0 to 5, or None where no try gave one.

    A try gives none if the answer was broken off, whatever it holds, or if it cannot be read. For the tries see
    `ask_again`; those after a greedy one have the temperature `RETRY_TEMPERATURE`.

    Args:
        asker: Its judge is asked.
        messages: A conversation that ends with the answer to rate.
        language: Of the row: the judge is asked in it if there is a prompt in it, otherwise in English.
        scale: `quality` or `fluency`, the name of the prompt.
        sampling: Of the first try, and of the others unless it is greedy.
        retries: How often the judge is asked again.
        seed: The recipe's.
        row_id: The row's.
        purpose: What is rated, as in `seed_of`.

    Raises:
        Failed: A request failed for good.
    """
    text = prompt(scale, language).render(
        conversation=messages[:-1], answer=messages[-1]["content"], structured=asker.structured
    )
    request = Request(
        messages=({"role": "user", "content": text},),
        sampling=sampling,
        schema=RATING_SCHEMA if asker.structured else None,
    )

    def read(answer: Answer) -> float | Failed:
        rating = parse_structured(answer.text) if asker.structured else parse_score(answer.text)
        return Failed("no rating in the answer") if rating is None else rating

    found = await ask_again(
        asker,
        "judge",
        request,
        read,
        retries=retries,
        warmer=RETRY_TEMPERATURE,
        seed=seed,
        row_id=row_id,
        purpose=purpose,
    )
    return None if isinstance(found, Failed) else found


def prompt_language(names: Sequence[str], language: str) -> dict[str, str]:
    """Return `{"prompt_language": ...}` where one of the prompts is not in the row's language, else nothing."""
    used = {prompt(name, language).language for name in names}
    other = sorted(used - {language_code(language)})
    return {"prompt_language": other[0]} if other else {}


def prompt_names(options: Rate) -> list[str]:
    """Return the names of the prompts that the entry uses, for `prompt_texts`."""
    return list(options.scales)


def problems_of_rate(options: Rate) -> list[str]:
    """Return what is wrong with an entry as a whole, each problem beginning with its key."""
    problems = []
    for scale, minimum in (("quality", options.min_quality), ("fluency", options.min_fluency)):
        if minimum is not None and scale not in options.scales:
            problems.append(f"min_{scale}: nobody rates the {scale}; add {scale} to scales")
    return problems
