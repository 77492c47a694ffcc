"""Sentences of the small world, each in English and in Finnish: what translations and stories are made of."""

from __future__ import annotations

from random import Random

from .almanac import DAYS, MONTHS, NUMBERS, Season, season_of
from .world import ANIMALS, COLOURS, FRUITS, PEOPLE, PLACES, THINGS, Animal, Noun, Pair, Person, a, capital


def a_thing(r: Random) -> tuple[Noun, str, Pair]:
    """Return a portable thing, its English colour, and the colour's Finnish nominative and genitive."""
    colour = r.choice(("red", "blue", "green", "yellow", "black", "white", "brown", "grey"))
    return r.choice([n for key, n in THINGS.items() if key != "boat"]), colour, COLOURS[colour]


def _seen(r: Random) -> Pair:
    p, x = r.choice(PEOPLE), r.choice(ANIMALS)
    english, finnish = r.choice(
        (("sees", "näkee"), ("saw", "näki"), ("finds", "löytää"), ("found", "löysi"), ("draws", "piirtää"))
    )
    return f"{p.name} {english} {a(x.noun.en)} {x.place.at[0]}.", f"{p.name} {finnish} {x.noun.gen} {x.place.at[1]}."


def _has(r: Random) -> Pair:
    p, (n, colour, shade) = r.choice(PEOPLE), a_thing(r)
    english, finnish = r.choice((("has", "on"), ("had", "oli")))
    return f"{p.name} {english} {a(colour)} {n.en}.", f"{p.adessive} {finnish} {shade[0]} {n.fi}."


def _wants(r: Random) -> Pair:
    p, (n, colour, shade) = r.choice(PEOPLE), a_thing(r)
    english, finnish = r.choice(
        (("wants", "haluaa"), ("buys", "ostaa"), ("bought", "osti"), ("found", "löysi"), ("carries", "kantaa"))
    )
    return f"{p.name} {english} {a(colour)} {n.en}.", f"{p.name} {finnish} {shade[1]} {n.gen}."


def _gives(r: Random) -> Pair:
    (p, q), (n, colour, shade) = r.sample(PEOPLE, 2), a_thing(r)
    english, finnish = r.choice((("gives", "antaa"), ("gave", "antoi")))
    return f"{p.name} {english} {q.name} {a(colour)} {n.en}.", f"{p.name} {finnish} {q.allative} {shade[1]} {n.gen}."


def _is_coloured(r: Random) -> Pair:
    n, colour, shade = a_thing(r)
    english, finnish = r.choice((("is", "on"), ("was", "oli")))
    return f"The {n.en} {english} {colour}.", f"{capital(n.fi)} {finnish} {shade[0]}."


def _there_are(r: Random) -> Pair:
    x, number = r.choice(ANIMALS), NUMBERS[r.randint(2, 10)]
    return (f"There are {number[0]} {x.noun.en_plural} {x.place.at[0]}.",
            f"{capital(x.place.at[1])} on {number[1]} {x.noun.part}.")  # fmt: skip


def _does(r: Random) -> Pair:
    x = r.choice(ANIMALS)
    english, finnish = r.choice((("sleeps", "nukkuu"), ("lives", "asuu"), ("rests", "lepää")))
    return f"The {x.noun.en} {english} {x.place.at[0]}.", f"{capital(x.noun.fi)} {finnish} {x.place.at[1]}."


def _buys(r: Random) -> Pair:
    p, n, number, day = r.choice(PEOPLE), r.choice(FRUITS).noun, NUMBERS[r.randint(2, 10)], r.choice(DAYS)
    english, finnish = r.choice((("buys", "ostaa"), ("bought", "osti"), ("eats", "syö"), ("ate", "söi")))
    return (f"{p.name} {english} {number[0]} {n.en_plural} on {day[0]}.",
            f"{p.name} {finnish} {day[4]} {number[1]} {n.part}.")  # fmt: skip


def _goes(r: Random) -> Pair:
    p, place, day = r.choice(PEOPLE), r.choice(list(PLACES.values())), r.choice(DAYS)
    english, finnish = r.choice((("goes", "menee"), ("went", "meni"), ("walks", "kävelee"), ("walked", "käveli")))
    return f"{p.name} {english} {place.to[0]} on {day[0]}.", f"{p.name} {finnish} {day[4]} {place.to[1]}."


def _are_together(r: Random) -> Pair:
    p, q = r.sample(PEOPLE, 2)
    places = ("forest", "meadow", "garden", "yard", "shore", "shop", "school", "library", "sauna", "square")
    at = PLACES[r.choice(places)].at
    english, finnish = r.choice((("are", "ovat"), ("were", "olivat")))
    return f"{p.name} and {q.name} {english} {at[0]}.", f"{p.name} ja {q.name} {finnish} {at[1]}."


_SENTENCES = (_seen, _has, _wants, _gives, _is_coloured, _there_are, _does, _buys, _goes, _are_together)


def sentence(r: Random) -> Pair:
    """Return one simple sentence and its Finnish translation."""
    return r.choice(_SENTENCES)(r)


def tale(p: Person, x: Animal) -> Pair:
    """Return the short story of a person who meets an animal."""
    n, shade = x.noun, COLOURS[x.colour]
    beats = [
        (f"{p.name} went {x.place.to[0]}.", f"{p.name} meni {x.place.to[1]}."),
        (f"There {p.pronoun} saw {a(x.colour)} {n.en}.", f"Siellä hän näki {shade[1]} {n.gen}."),
        (f"The {n.en} was eating {x.food[0]}.", f"{capital(n.fi)} söi {x.food[1]}."),
        (f"{p.name} smiled and walked home.", f"{p.name} hymyili ja käveli kotiin."),
    ]
    return " ".join(beat[0] for beat in beats), " ".join(beat[1] for beat in beats)


def _opening(r: Random, p: Person, season: Season, month: int, to: Pair) -> list[Pair]:
    day, adjective = r.choice(DAYS), r.choice(season.adjectives)
    return [
        r.choice((
            (f"On {day[0]} {p.name} went {to[0]}.", f"{capital(day[4])} {p.name} meni {to[1]}."),
            (f"One {season.en} day {p.name} walked {to[0]}.", f"Eräänä {season.day} {p.name} käveli {to[1]}."),
            (f"It was {a(adjective[0])} day in {MONTHS[month][0]}, and {p.name} went {to[0]}.",
             f"Oli {adjective[1]} päivä {MONTHS[month][1]}ssa, ja {p.name} meni {to[1]}."),
            (f"Early in the morning {p.name} left home and walked {to[0]}.",
             f"Varhain aamulla {p.name} lähti kotoa ja käveli {to[1]}."),
        )),
        r.choice(season.sky),
    ]  # fmt: skip


def _carrying(r: Random, p: Person) -> Pair:
    n, colour, shade = a_thing(r)
    him = "her" if p.pronoun == "she" else "him"
    return f"{capital(p.pronoun)} had {a(colour)} {n.en} with {him}.", f"Hänellä oli mukanaan {shade[0]} {n.fi}."


def _ending(r: Random, p: Person, q: Person) -> Pair:
    she = p.pronoun
    return r.choice((
        (f"In the evening {she} came home and went to the sauna.", "Illalla hän tuli kotiin ja meni saunaan."),
        (f"Then {she} walked home and drank a cup of tea.", "Sitten hän käveli kotiin ja joi kupin teetä."),
        (f"{p.name} smiled and walked home.", f"{p.name} hymyili ja käveli kotiin."),
        (f"In the evening {she} told {q.name} about it.", f"Illalla hän kertoi siitä {q.allative}."),
        ("It was a good day.", "Se oli hyvä päivä."),
        (f"{p.name} was tired but happy.", f"{p.name} oli väsynyt mutta iloinen."),
    ))  # fmt: skip


def walk(r: Random) -> list[Pair]:
    """A walk on which someone sees an animal or two; no animal is out in a season when it should not be."""
    month = r.randrange(12)
    season, (p, q) = season_of(month), r.sample(PEOPLE, 2)
    x = r.choice([x for x in ANIMALS if x.winter or season.en != "winter"])
    n, shade, number = x.noun, COLOURS[x.colour], NUMBERS[r.randint(2, 6)]
    beats = _opening(r, p, season, month, x.place.to)
    if r.random() < 0.4:
        beats.append(_carrying(r, p))
    if r.random() < 0.6:
        beats.append(r.choice((
            (f"There {p.pronoun} saw {a(n.en)}.", f"Siellä hän näki {n.gen}."),
            (f"There {p.pronoun} saw {a(x.colour)} {n.en}.", f"Siellä hän näki {shade[1]} {n.gen}."),
        )))  # fmt: skip
        beats += r.sample((
            (f"The {n.en} was eating {x.food[0]}.", f"{capital(n.fi)} söi {x.food[1]}."),
            (f"The {n.en} looked at {p.name}.", f"{capital(n.fi)} katsoi {p.part}."),
            (f"{capital(a(n.en))} {x.habit[0]}, {p.name} thought.",
             f"{capital(n.fi)} {x.habit[1]}, {p.name} ajatteli."),
            (f"{p.name} stood still for a while.", f"{p.name} seisoi hetken paikallaan."),
            (f"{p.name} drew a picture of the {n.en}.", f"{p.name} piirsi kuvan {n.local('elative')}."),
        ), r.randint(1, 2))  # fmt: skip
    else:
        beats.append((f"There {p.pronoun} saw {number[0]} {n.en_plural}.", f"Siellä hän näki {number[1]} {n.part}."))
        beats.append(r.choice((
            (f"They were eating {x.food[0]}.", f"Ne söivät {x.food[1]}."),
            (f"{p.name} counted them again.", f"{p.name} laski ne uudestaan."),
        )))  # fmt: skip
    beats.append(_ending(r, p, q))
    return beats


def shopping(r: Random) -> list[Pair]:
    """Someone buys two kinds of fruit or vegetables and counts them."""
    month = r.randrange(12)
    (p, q), (f, g) = r.sample(PEOPLE, 2), r.sample(FRUITS, 2)
    m, n = r.randint(2, 9), r.randint(2, 9)
    x, y, total = NUMBERS[m], NUMBERS[n], NUMBERS[m + n]
    him = "her" if p.pronoun == "she" else "him"
    return [
        *_opening(r, p, season_of(month), month, PLACES[r.choice(("shop", "square"))].to),
        (f"{capital(p.pronoun)} bought {x[0]} {f.noun.en_plural} and {y[0]} {g.noun.en_plural}.",
         f"Hän osti {x[1]} {f.noun.part} ja {y[1]} {g.noun.part}."),
        (f"That made {total[0]} in all.", f"Niitä oli yhteensä {total[1]}."),
        r.choice((
            (f"{p.name} put them in a basket.", f"{p.name} pani ne koriin."),
            (f"{q.name} thanked {him}.", f"{q.name} kiitti häntä."),
            (f"{p.name} gave the {f.noun.en_plural} to {q.name}.", f"{p.name} antoi {f.noun.fi_plural} {q.allative}."),
            (f"{p.name} and {q.name} ate the {g.noun.en_plural} together.",
             f"{p.name} ja {q.name} söivät {g.noun.fi_plural} yhdessä."),
        )),
        _ending(r, p, q),
    ]  # fmt: skip


def visit(r: Random) -> list[Pair]:
    """Someone visits another at work, and gives a thing away."""
    month = r.randrange(12)
    (p, q), (n, colour, shade) = r.sample(PEOPLE, 2), a_thing(r)
    him = "her" if q.pronoun == "she" else "him"
    return [
        *_opening(r, p, season_of(month), month, q.place.to),
        (f"{q.name} is {a(q.job[0])}, and {q.pronoun} was working {q.place.at[0]}.",
         f"{q.name} on {q.job[1]}, ja hän oli töissä {q.place.at[1]}."),
        (f"{p.name} gave {him} {a(colour)} {n.en}.", f"{p.name} antoi hänelle {shade[1]} {n.gen}."),
        r.choice((
            (f'"Thank you for the {n.en}, {p.name}!" said {q.name}.',
             f'"Kiitos {n.local("elative")}, {p.name}!" sanoi {q.name}.'),
            (f"{q.name} was very happy.", f"{q.name} oli hyvin iloinen."),
            (f"{q.name} smiled and thanked {p.name}.", f"{q.name} hymyili ja kiitti {p.part}."),
        )),
        _ending(r, q, p) if r.random() < 0.5 else _ending(r, p, q),
    ]  # fmt: skip
