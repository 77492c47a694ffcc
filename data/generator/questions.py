"""Questions about the animals, people and things of the small world, and their right answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from .almanac import NUMBERS
from .beats import tale
from .world import ANIMALS, BIG, COLOURS, EN, FRUITS, KINDS, PEOPLE, THINGS, Animal, Fruit, a, capital


@dataclass(frozen=True)
class Exchange:
    """A question with its right answers, the fullest first; `other` is that one in the other language."""

    task: str
    language: str
    prompt: str
    answers: tuple[str, ...]
    other: str
    domain: str = "general"
    code: str | None = None
    topic: Animal | None = None


Texts = Sequence[str]
Task = Callable[[Random, str], Exchange]


def pick(
    r: Random,
    language: str,
    task: str,
    asked: tuple[Texts, Texts],
    answered: tuple[Texts, Texts],
    domain: str = "general",
    code: str | None = None,
    topic: Animal | None = None,
) -> Exchange:
    """Ask in one of the phrasings of `language`; `asked` and `answered` hold the English texts, then the Finnish."""
    here = 0 if language == EN else 1
    prompt = r.choice(list(asked[here]))
    return Exchange(task, language, prompt, tuple(answered[here]), answered[1 - here][0], domain, code, topic)


def describe(r: Random, language: str) -> Exchange:
    x = r.choice(ANIMALS)
    n, size = x.noun, ("big", "iso") if x.size >= BIG else ("small", "pieni")
    colour = COLOURS[x.colour][0]
    asked = (
        (f"Describe {a(n.en)}.", f"What is {a(n.en)} like?", f"Tell me about {n.en_plural}.",
         f"Please describe {a(n.en)} in a few words.", f"What kind of animal is {a(n.en)}?",
         f"What do you know about {n.en_plural}?"),
        (f"Kuvaile {n.part}.", f"Millainen {n.fi} on?", f"Kerro minulle {n.local('elative')}.",
         f"Kuvailisitko {n.part} muutamalla sanalla?", f"Millainen eläin {n.fi} on?",
         f"Mitä tiedät {n.local('elative')}?"),
    )  # fmt: skip
    english = f"{capital(a(n.en))} is {size[0]} and {x.colour}. It lives {x.place.at[0]} and eats {x.food[0]}."
    finnish = f"{capital(n.fi)} on {size[1]} ja {colour}. Se asuu {x.place.at[1]} ja syö {x.food[1]}."
    full = (f"{english} It {x.habit[0]}.", f"{finnish} Se {x.habit[1]}.")
    return pick(r, language, "describe", asked, ((full[0], english), (full[1], finnish)), topic=x)


def live(r: Random, language: str, x: Animal | None = None) -> Exchange:
    x = x or r.choice(ANIMALS)
    n = x.noun
    asked = (
        (f"Where does {a(n.en)} live?", f"Where can I see {a(n.en)}?", f"Where do {n.en_plural} live?"),
        (f"Missä {n.fi} asuu?", f"Missä voin nähdä {n.gen}?", f"Missä {n.fi_plural} asuvat?"),
    )
    english = (f"{capital(a(n.en))} lives {x.place.at[0]}.", f"You can see {a(n.en)} {x.place.at[0]}.")
    finnish = (f"{capital(n.fi)} asuu {x.place.at[1]}.", f"Voit nähdä {n.gen} {x.place.at[1]}.")
    return pick(r, language, "live", asked, (english, finnish), topic=x)


def eat(r: Random, language: str, x: Animal | None = None) -> Exchange:
    x = x or r.choice(ANIMALS)
    n = x.noun
    asked = (
        (f"What does {a(n.en)} eat?", f"What do {n.en_plural} eat?", f"What food does {a(n.en)} like?"),
        (f"Mitä {n.fi} syö?", f"Mitä {n.fi_plural} syövät?", f"Mitä ruokaa {n.fi} syö?"),
    )
    english = (f"{capital(a(n.en))} eats {x.food[0]}.", f"It eats {x.food[0]}.")
    finnish = (f"{capital(n.fi)} syö {x.food[1]}.", f"Se syö {x.food[1]}.")
    return pick(r, language, "eat", asked, (english, finnish), domain="stem", topic=x)


def colour(r: Random, language: str, x: Animal | None = None) -> Exchange:
    items: list[Animal | Fruit] = [*ANIMALS, *FRUITS]
    item = x or r.choice(items)
    n, shade = item.noun, COLOURS[item.colour][0]
    asked = (
        (f"What colour is {a(n.en)}?", f"Tell me the colour of {a(n.en)}.", f"Which colour is {a(n.en)}, please?"),
        (f"Minkä värinen {n.fi} on?", f"Kerro, minkä värinen {n.fi} on.", f"Mikä väri on {n.local('adessive')}?"),
    )
    english = (f"{capital(a(n.en))} is {item.colour}.", f"It is {item.colour}.")
    finnish = (f"{capital(n.fi)} on {shade}.", f"Se on {shade}.")
    return pick(r, language, "colour", asked, (english, finnish), topic=item if isinstance(item, Animal) else None)


def belonging(r: Random, language: str) -> Exchange:
    p = r.choice(PEOPLE)
    thing, shade = r.choice(p.belongings)
    n, finnish_shade = THINGS[thing], COLOURS[shade][0]
    asked = (
        (f"What colour is {p.name}'s {thing}?", f"Which colour does {p.name}'s {thing} have?"),
        (f"Minkä värinen {p.gen} {n.fi} on?", f"Mikä väri on {p.gen} {n.local('adessive')}?"),
    )
    answered = ((f"{p.name}'s {thing} is {shade}.",), (f"{p.gen} {n.fi} on {finnish_shade}.",))
    return pick(r, language, "belonging", asked, answered)


def yes_or_no(r: Random, language: str) -> Exchange:
    x, y = r.sample(ANIMALS, 2)
    if r.random() < 0.5:
        y = x
    n, topic = x.noun, r.choice(("food", "kind", "colour"))
    if topic == "food":
        same = x.food == y.food
        asked = (f"Does {a(n.en)} eat {y.food[0]}?", f"Syökö {n.fi} {y.food[1]}?")
        yes = (f"Yes, {a(n.en)} eats {x.food[0]}.", f"Kyllä, {n.fi} syö {x.food[1]}.")
        no = (f"No, {a(n.en)} does not eat {y.food[0]}. It eats {x.food[0]}.",
              f"Ei, {n.fi} ei syö {y.food[1]}. Se syö {x.food[1]}.")  # fmt: skip
    elif topic == "kind":
        mine, other = KINDS[x.kind][0], KINDS[y.kind][0]
        same = x.kind == y.kind
        asked = (f"Is {a(n.en)} {a(other.en)}?", f"Onko {n.fi} {other.fi}?")
        yes = (f"Yes, {a(n.en)} is {a(mine.en)}.", f"Kyllä, {n.fi} on {mine.fi}.")
        no = (f"No, {a(n.en)} is not {a(other.en)}. It is {a(mine.en)}.",
              f"Ei, {n.fi} ei ole {other.fi}. Se on {mine.fi}.")  # fmt: skip
    else:
        shade, other_shade = COLOURS[x.colour][0], COLOURS[y.colour][0]
        same = x.colour == y.colour
        asked = (f"Is {a(n.en)} {y.colour}?", f"Onko {n.fi} {other_shade}?")
        yes = (f"Yes, {a(n.en)} is {x.colour}.", f"Kyllä, {n.fi} on {shade}.")
        no = (f"No, {a(n.en)} is not {y.colour}. It is {x.colour}.",
              f"Ei, {n.fi} ei ole {other_shade}. Se on {shade}.")  # fmt: skip
    answer = yes if same else no
    return pick(r, language, "yes_or_no", ((asked[0],), (asked[1],)), ((answer[0],), (answer[1],)), domain="stem")


def bigger(r: Random, language: str) -> Exchange:
    x, y = r.sample(ANIMALS, 2)
    while x.size == y.size:
        x, y = r.sample(ANIMALS, 2)
    big, small = (x.noun, y.noun) if x.size > y.size else (y.noun, x.noun)
    asked = (
        (f"Which is bigger, {a(x.noun.en)} or {a(y.noun.en)}?",),
        (f"Kumpi on isompi, {x.noun.fi} vai {y.noun.fi}?",),
    )
    answered = (
        (f"{capital(a(big.en))} is bigger than {a(small.en)}.",),
        (f"{capital(big.fi)} on isompi kuin {small.fi}.",),
    )
    return pick(r, language, "bigger", asked, answered, domain="stem")


def legs(r: Random, language: str) -> Exchange:
    x = r.choice(ANIMALS)
    kind, count = KINDS[x.kind]
    n = x.noun
    english = [f"How many legs does {a(n.en)} have?", f"What sort of animals are {n.en_plural}?"]
    finnish = [f"Montako jalkaa {n.local('adessive')} on?", f"Mitä eläimiä {n.fi_plural} ovat?"]
    if x.kind != "amphibian":
        english.append(f"Is {a(n.en)} a mammal, a bird, a fish or an insect?")
        finnish.append(f"Onko {n.fi} nisäkäs, lintu, kala vai hyönteinen?")
    if count:
        numbers = NUMBERS[count]
        answer = (f"{capital(a(n.en))} is {a(kind.en)}, and it has {numbers[0]} legs.",
                  f"{capital(n.fi)} on {kind.fi}, ja sillä on {numbers[1]} jalkaa.")  # fmt: skip
    else:
        answer = (f"{capital(a(n.en))} is {a(kind.en)}, and it has no legs.",
                  f"{capital(n.fi)} on {kind.fi}, eikä sillä ole jalkoja.")  # fmt: skip
    return pick(r, language, "legs", (english, finnish), ((answer[0],), (answer[1],)), domain="stem")


def list_some(r: Random, language: str) -> Exchange:
    count = r.randint(2, 4)
    groups = [
        (f"animals that live {p.at[0]}", f"eläintä, jotka asuvat {p.at[1]}", members)
        for p in {id(x.place): x.place for x in ANIMALS}.values()
        if len(members := [x.noun for x in ANIMALS if x.place is p]) >= 2
    ]
    groups += [
        (noun.en_plural, noun.part, [x.noun for x in ANIMALS if x.kind == kind]) for kind, (noun, _) in KINDS.items()
    ]
    groups.append(("animals", "eläintä", [x.noun for x in ANIMALS[::4]]))
    groups.append(("things to eat", "syötävää asiaa", [f.noun for f in FRUITS[::2]]))
    groups = [group for group in groups if len(group[2]) >= count]
    english, finnish, members = r.choice(groups)
    chosen = members[:count]
    word = NUMBERS[count]
    asked = (
        (f"List {word[0]} {english}.", f"Name {word[0]} {english}, please.", f"Can you name {word[0]} {english}?"),
        (f"Luettele {word[1]} {finnish}.", f"Nimeä {word[1]} {finnish}.", f"Osaatko nimetä {word[1]} {finnish}?"),
    )
    first, second = [n.en_plural for n in chosen], [n.fi for n in chosen]
    answered = (
        (f"Here are {word[0]}: {', '.join(first[:-1])} and {first[-1]}.",),
        (f"Tässä on {word[1]}: {', '.join(second[:-1])} ja {second[-1]}.",),
    )
    return pick(r, language, "list", asked, answered)


def work(r: Random, language: str) -> Exchange:
    p = r.choice(PEOPLE)
    asked = (
        (f"What does {p.name} do for a living?", f"Where does {p.name} work?", f"Who works {p.place.at[0]}?",
         f"Who is {p.name}?"),
        (f"Mitä {p.name} tekee työkseen?", f"Missä {p.name} työskentelee?", f"Kuka työskentelee {p.place.at[1]}?",
         f"Kuka {p.name} on?"),
    )  # fmt: skip
    answered = (
        (f"{p.name} is {a(p.job[0])}. {capital(p.pronoun)} works {p.place.at[0]}.",),
        (f"{p.name} on {p.job[1]}. Hän työskentelee {p.place.at[1]}.",),
    )
    return pick(r, language, "work", asked, answered)


def story(r: Random, language: str) -> Exchange:
    p, x = r.choice(PEOPLE), r.choice(ANIMALS)
    n = x.noun
    asked = (
        (f"Write a short story about {p.name} and {a(n.en)}.", f"Tell me a short story about {p.name} and {a(n.en)}."),
        (f"Kirjoita lyhyt tarina, jossa ovat {p.name} ja {n.fi}.", f"Kerro lyhyt tarina: {p.name} ja {n.fi}."),
    )
    english, finnish = tale(p, x)
    return pick(r, language, "story", asked, ((english,), (finnish,)))
