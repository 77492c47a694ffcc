"""`rate`: a judge gives the last answer of each row points for its quality, its fluency, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.ratings import RATING_SCHEMA, parse_score, parse_structured
from posttrain.data.generate.requests import LENGTH, Asker, Failed, Request, seed_of
from posttrain.data.generate.rollouts.together import together
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.data.languages import language_code
from posttrain.data.rows import Message
from posttrain.recipe.schema_generate import Rate, Sampling

RETRY_TEMPERATURE = 0.7  # where the first try is greedy: asked again greedily, the judge would write the same


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
                seed=_seeds(seed, row.id, f"rate {scale}"),
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
    seed: Callable[[int], int],
) -> float | None:
    """Return the judge's rating of the last turn, 0 to 5, or None where no try gave one.

    A try gives none if the judge reached `max_tokens`, whatever it wrote, or if its answer cannot be read. Each try
    is another sample of the same prompt; those after the first have at least a temperature of `RETRY_TEMPERATURE`
    where the first is greedy.

    Args:
        asker: Its judge is asked.
        messages: A conversation that ends with the answer to rate.
        language: Of the row: the judge is asked in it if there is a prompt in it, otherwise in English.
        scale: `quality` or `fluency`, the name of the prompt.
        sampling: Of the first try, and of the others unless it is greedy.
        retries: How often the judge is asked again.
        seed: From the number of the try to its seed; not used for a greedy one.

    Raises:
        Failed: A request failed for good.
    """
    text = prompt(scale, language).render(
        conversation=messages[:-1], answer=messages[-1]["content"], structured=asker.structured
    )
    for attempt in range(retries + 1):
        drawn = sampling
        if attempt and sampling.temperature == 0:
            drawn = replace(sampling, temperature=RETRY_TEMPERATURE)
        request = Request(
            messages=({"role": "user", "content": text},),
            sampling=drawn,
            seed=seed(attempt) if drawn.temperature > 0 else None,
            sample=attempt,
            schema=RATING_SCHEMA if asker.structured else None,
        )
        answer = await asker.ask(request, "judge")
        if answer.finish_reason == LENGTH:
            continue
        rating = parse_structured(answer.text) if asker.structured else parse_score(answer.text)
        if rating is not None:
            return rating
    return None


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


def _seeds(seed: int, row_id: str, purpose: str) -> Callable[[int], int]:
    return lambda attempt: seed_of(seed, row_id, purpose, attempt)
