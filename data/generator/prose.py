"""Paragraphs of pretraining text: stories, facts, conversations as prose, and the two languages side by side."""

from __future__ import annotations

from random import Random

from .almanac import DAYS, MONTHS, NUMBERS, OPPOSITES, ORDINALS, season_of
from .beats import sentence, shopping, visit, walk
from .questions import belonging, bigger, colour, eat, legs, list_some, live, work, yes_or_no
from .tasks import add, day, month, opposite, together
from .world import ANIMALS, BIG, COLOURS, EN, FRUITS, KINDS, PEOPLE, THINGS, Animal, Fruit, Pair, a, capital

_SPOKEN = (belonging, bigger, colour, eat, legs, list_some, live, work, yes_or_no, add, day, month, opposite, together)


def _join(beats: list[Pair], here: int) -> str:
    """Join the sentences of one language; a sentence that was drawn twice comes once."""
    return " ".join(dict.fromkeys(beat[here] for beat in beats))


def _story(r: Random, here: int) -> str:
    return _join(r.choice((walk, walk, walk, shopping, visit))(r), here)


def _animal(r: Random, here: int) -> str:
    x = r.choice(ANIMALS)
    n, shade = x.noun, COLOURS[x.colour][0]
    size = ("big", "iso") if x.size >= BIG else ("small", "pieni")
    kind, count = KINDS[x.kind]
    feet = (
        (f"It has {NUMBERS[count][0]} legs.", f"Sillä on {NUMBERS[count][1]} jalkaa.")
        if count
        else ("It has no legs.", "Sillä ei ole jalkoja.")
    )
    person = r.choice(PEOPLE)
    first = r.choice((
        (f"{capital(a(n.en))} is {a(kind.en)}.", f"{capital(n.fi)} on {kind.fi}."),
        (f"{capital(a(n.en))} is {size[0]} and {x.colour}.", f"{capital(n.fi)} on {size[1]} ja {shade}."),
        (f"{capital(a(n.en))} lives {x.place.at[0]}.", f"{capital(n.fi)} asuu {x.place.at[1]}."),
        (f"{person.name} saw {a(n.en)} {x.place.at[0]}.", f"{person.name} näki {n.gen} {x.place.at[1]}."),
        (f'"Look, {a(n.en)}!" said {person.name}.', f'"Katso, {n.fi}!" sanoi {person.name}.'),
    ))  # fmt: skip
    home = (f"It lives {x.place.at[0]}.", f"Se asuu {x.place.at[1]}.")
    meal = (f"It eats {x.food[0]}.", f"Se syö {x.food[1]}.")
    both = (f"It lives {x.place.at[0]} and eats {x.food[0]}.", f"Se asuu {x.place.at[1]} ja syö {x.food[1]}.")
    rest = [
        (f"It is {x.colour}.", f"Se on {shade}."),
        (f"It {x.habit[0]}.", f"Se {x.habit[1]}."),
        feet,
        *([both] if r.random() < 0.5 else [home, meal]),
    ]
    return _join([first, *r.sample(rest, r.randint(2, 4))], here)


def _compared(r: Random, here: int) -> str:
    """Two or three animals set against one another."""
    beats: list[Pair] = []
    x, *others = r.sample(ANIMALS, r.randint(3, 4))
    for y in others:
        if x.size != y.size:
            big, small = (x.noun, y.noun) if x.size > y.size else (y.noun, x.noun)
            beats.append(
                (f"{capital(a(big.en))} is bigger than {a(small.en)}.", f"{capital(big.fi)} on isompi kuin {small.fi}.")
            )
        if x.food != y.food:
            beats.append((f"{capital(a(x.noun.en))} eats {x.food[0]}, but {a(y.noun.en)} eats {y.food[0]}.",
                          f"{capital(x.noun.fi)} syö {x.food[1]}, mutta {y.noun.fi} syö {y.food[1]}."))  # fmt: skip
        if x.place != y.place:
            beats.append((f"{capital(a(y.noun.en))} does not live {x.place.at[0]}. It lives {y.place.at[0]}.",
                          f"{capital(y.noun.fi)} ei asu {x.place.at[1]}. Se asuu {y.place.at[1]}."))  # fmt: skip
    return _join(r.sample(beats, min(4, len(beats))), here)


def _person(r: Random, here: int) -> str:
    p = r.choice(PEOPLE)
    beats: list[Pair] = [
        (f"{p.name} is {a(p.job[0])}.", f"{p.name} on {p.job[1]}."),
        (f"{capital(p.pronoun)} works {p.place.at[0]}.", f"Hän työskentelee {p.place.at[1]}."),
    ]
    for thing, shade in r.sample(p.belongings, r.randint(2, 3)):
        n, finnish = THINGS[thing], COLOURS[shade][0]
        beats.append(r.choice((
            (f"{p.name}'s {thing} is {shade}.", f"{p.gen} {n.fi} on {finnish}."),
            (f"{p.name} has {a(shade)} {thing}.", f"{p.adessive} on {finnish} {n.fi}."),
        )))  # fmt: skip
    f = r.choice([fruit.noun for fruit in FRUITS if fruit.single])
    beats.append((f"Sometimes {p.pronoun} eats {a(f.en)}.", f"Joskus hän syö {f.gen}."))
    return _join(beats, here)


def _calendar(r: Random, here: int) -> str:
    beats: list[Pair] = []
    for _ in range(r.randint(3, 4)):
        i, j = r.randrange(12), r.randrange(7)
        (english, finnish), season, now, following = MONTHS[i], season_of(i), DAYS[j], DAYS[(j + 1) % 7]
        beats.append(r.choice((
            (f"{english} is the {ORDINALS[i][0]} month of the year.",
             f"{capital(finnish)} on vuoden {ORDINALS[i][1]} kuukausi."),
            (f"{english} is {a(season.en)} month.", f"{capital(finnish)} on {season.gen} kuukausi."),
            (f"In {english} {season.weather[0]}.", f"{capital(finnish)}ssa {season.weather[1]}."),
            (f"In {season.en} {season.weather[0]}.", f"{capital(season.during)} {season.weather[1]}."),
            (f"After {now[0]} comes {following[0]}.", f"{capital(now[2])} jälkeen tulee {following[1]}."),
            (f"Before {following[0]} comes {now[0]}.", f"Ennen {following[3]} tulee {now[1]}."),
        )))  # fmt: skip
    return _join(beats, here)


def _sums(r: Random, here: int) -> str:
    beats: list[Pair] = []
    for _ in range(r.randint(3, 5)):
        m, n = r.randint(1, 10), r.randint(1, 10)
        x, y, total = NUMBERS[m], NUMBERS[n], NUMBERS[m + n]
        beats.append((f"{capital(x[0])} plus {y[0]} is {total[0]}.", f"{capital(x[1])} plus {y[1]} on {total[1]}."))
    if r.random() < 0.5:
        first = r.randint(0, 10)
        last = r.randint(first + 2, min(first + 8, 20))
        english, finnish = (", ".join(word[i] for word in NUMBERS[first : last + 1]) for i in (0, 1))
        p = r.choice(PEOPLE)
        beats.append((f"{p.name} counts: {english}.", f"{p.name} laskee: {finnish}."))
    return _join(beats, here)


def _words(r: Random, here: int) -> str:
    """Opposites and colours."""
    beats: list[Pair] = []
    for x, y, u, v in r.sample(OPPOSITES, 2):
        beats.append((f"The opposite of {x} is {y}, and the opposite of {y} is {x}.",
                      f"Sanan {u} vastakohta on {v}, ja sanan {v} vastakohta on {u}."))  # fmt: skip
    items: list[Animal | Fruit] = [*FRUITS, *ANIMALS]
    for item in r.sample(items, 2):
        n = item.noun
        beats.append((f"{capital(a(n.en))} is {item.colour}.", f"{capital(n.fi)} on {COLOURS[item.colour][0]}."))
    r.shuffle(beats)
    return _join(beats, here)


def _conversation(r: Random, here: int) -> str:
    """Questions and answers told as prose; no mark of a chat format occurs."""
    p, q = r.sample(PEOPLE, 2)
    parts = []
    for _ in range(r.randint(1, 2)):
        x = r.choice(_SPOKEN)(r, ("en", "fi")[here])
        question, answer = x.prompt, x.answers[0].removesuffix(".")
        if here == 0:
            mark = question if question.endswith("?") else question.removesuffix(".") + ","
            parts.append(
                f'"{mark}" {"asked" if question.endswith("?") else "said"} {p.name}. "{answer}," answered {q.name}.'
            )
        elif question.endswith("?"):
            parts.append(f'"{question}" kysyi {p.name}. "{answer}", vastasi {q.name}.')
        else:
            parts.append(f'"{question.removesuffix(".")}", sanoi {p.name}. "{answer}", vastasi {q.name}.')
    return " ".join(parts)


def _both_languages(r: Random, here: int) -> str:
    parts = []
    for _ in range(r.randint(2, 3)):
        english, finnish = sentence(r)
        parts.append(
            f'"{english}" is in Finnish "{finnish}"' if here == 0 else f'"{finnish}" on englanniksi "{english}"'
        )
    n = r.choice([*(x.noun for x in ANIMALS), *(f.noun for f in FRUITS), *THINGS.values()])
    parts.append(
        f'The word "{n.en}" is "{n.fi}" in Finnish.' if here == 0 else f'Sana "{n.fi}" on englanniksi "{n.en}".'
    )
    return " ".join(parts)


def _parallel(r: Random, here: int) -> str:
    """A whole short story in this language and then in the other."""
    beats = r.choice((walk, shopping, visit))(r)
    return f"{_join(beats, here)}\n{_join(beats, 1 - here)}"


# Kind of paragraph and how often it comes, in parts
_PARAGRAPHS = {
    _story: 30, _animal: 14, _compared: 8, _person: 6, _calendar: 6, _sums: 6, _words: 7, _conversation: 12,
    _both_languages: 12, _parallel: 5,
}  # fmt: skip


def write_prose(r: Random, language: str, size: int) -> str:
    """Return paragraphs of `language`, no two the same, separated by blank lines: at least `size` bytes of UTF-8."""
    here = 0 if language == EN else 1
    seen: dict[str, None] = {}
    total = 0
    while total < size:
        text = r.choices(list(_PARAGRAPHS), weights=list(_PARAGRAPHS.values()))[0](r, here)
        if text and text not in seen:
            seen[text] = None
            total += len(text.encode()) + 2
    return "\n\n".join(seen) + "\n"
