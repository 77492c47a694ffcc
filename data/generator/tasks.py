"""The other tasks: numbers, the calendar, words, translation, politeness and code; and the choice among all tasks."""

from __future__ import annotations

from random import Random

from .almanac import DAYS, MONTHS, NUMBERS, OPPOSITES, ORDINALS, season_of
from .beats import sentence
from .questions import (
    Exchange,
    Task,
    belonging,
    bigger,
    colour,
    describe,
    eat,
    legs,
    list_some,
    live,
    pick,
    story,
    work,
    yes_or_no,
)
from .world import ANIMALS, FRUITS, KINDS, PEOPLE, THINGS, capital


def add(r: Random, language: str) -> Exchange:
    m, n = r.randint(1, 10), r.randint(1, 10)
    x, y, total = NUMBERS[m], NUMBERS[n], NUMBERS[m + n]
    asked = (
        (f"What is {x[0]} plus {y[0]}?", f"How much is {x[0]} plus {y[0]}?", f"Add {x[0]} and {y[0]}."),
        (f"Mitä on {x[1]} plus {y[1]}?", f"Paljonko on {x[1]} plus {y[1]}?", f"Laske yhteen {x[1]} ja {y[1]}."),
    )
    answered = ((f"{capital(x[0])} plus {y[0]} is {total[0]}.",), (f"{capital(x[1])} plus {y[1]} on {total[1]}.",))
    return pick(r, language, "add", asked, answered, domain="stem")


def together(r: Random, language: str) -> Exchange:
    p, q = r.sample(PEOPLE, 2)
    m, n = r.randint(2, 9), r.randint(2, 9)
    x, y, total, fruit = NUMBERS[m], NUMBERS[n], NUMBERS[m + n], r.choice(FRUITS).noun
    many, part = fruit.en_plural, fruit.part
    asked = (
        (f"{p.name} has {x[0]} {many} and {q.name} has {y[0]} {many}. How many {many} do they have?",),
        (f"{p.adessive} on {x[1]} {part} ja {q.adessive} on {y[1]} {part}. Montako {part} heillä on?",),
    )
    answered = (
        (f"Together they have {total[0]} {many}.",),
        (f"Heillä on yhteensä {total[1]} {part}.",),
    )
    return pick(r, language, "together", asked, answered, domain="stem")


def count(r: Random, language: str) -> Exchange:
    first = r.randint(0, 6)
    last = r.randint(first + 3, 10)
    asked = (
        (f"Count from {NUMBERS[first][0]} to {NUMBERS[last][0]}.",
         f"Please count from {NUMBERS[first][0]} to {NUMBERS[last][0]}."),
        (f"Laske {NUMBERS[first][2]} {NUMBERS[last][3]}.", f"Luettele luvut {NUMBERS[first][2]} {NUMBERS[last][3]}."),
    )  # fmt: skip
    answers = [capital(", ".join(word[i] for word in NUMBERS[first : last + 1])) + "." for i in (0, 1)]
    return pick(r, language, "count", asked, ((answers[0],), (answers[1],)), domain="stem")


def day(r: Random, language: str) -> Exchange:
    i = r.randrange(7)
    now, after, before = DAYS[i], DAYS[(i + 1) % 7], DAYS[i - 1]
    if r.random() < 0.5:
        asked = (
            (f"What day comes after {now[0]}?", f"Which day follows {now[0]}?",
             f"If today is {now[0]}, what day is tomorrow?"),
            (f"Mikä päivä tulee {now[2]} jälkeen?", f"Mikä päivä seuraa {now[3]}?",
             f"Jos tänään on {now[1]}, mikä päivä on huomenna?"),
        )  # fmt: skip
        answered = ((f"{after[0]} comes after {now[0]}.",), (f"{capital(now[2])} jälkeen tulee {after[1]}.",))
    else:
        asked = (
            (f"What day comes before {now[0]}?", f"Which day is just before {now[0]}?",
             f"If today is {now[0]}, what day was yesterday?"),
            (f"Mikä päivä tulee ennen {now[3]}?", f"Mikä päivä on juuri ennen {now[3]}?",
             f"Jos tänään on {now[1]}, mikä päivä oli eilen?"),
        )  # fmt: skip
        answered = ((f"{before[0]} comes before {now[0]}.",), (f"Ennen {now[3]} tulee {before[1]}.",))
    return pick(r, language, "day", asked, answered)


def month(r: Random, language: str) -> Exchange:
    i = r.randrange(12)
    english, finnish = MONTHS[i]
    season, topic = season_of(i), r.choice(("season", "weather", "order"))
    if topic == "season":
        asked = (
            (f"Which season is {english} in?", f"Is {english} in winter, spring, summer or autumn?"),
            (f"Mihin vuodenaikaan {finnish} kuuluu?", f"Onko {finnish} talvea, kevättä, kesää vai syksyä?"),
        )
        article = "an" if season.en == "autumn" else "a"
        answered = ((f"{english} is {article} {season.en} month.",), (f"{capital(finnish)} on {season.gen} kuukausi.",))
    elif topic == "weather":
        asked = (
            (f"What is the weather like in {english}?", f"What is it like in Lampila in {english}?"),
            (f"Millainen sää on {finnish}ssa?", f"Millaista Lampilassa on {finnish}ssa?"),
        )
        answered = ((f"In {english} {season.weather[0]}.",), (f"{capital(finnish)}ssa {season.weather[1]}.",))
    else:
        rank = ORDINALS[i]
        asked = (
            (f"What is the {rank[0]} month of the year?", f"Which month is the {rank[0]} one?"),
            (f"Mikä on vuoden {rank[1]} kuukausi?", f"Mikä kuukausi on {rank[1]}?"),
        )
        answered = ((f"The {rank[0]} month of the year is {english}.",), (f"Vuoden {rank[1]} kuukausi on {finnish}.",))
    return pick(r, language, "month", asked, answered)


def opposite(r: Random, language: str) -> Exchange:
    row = r.choice(OPPOSITES)
    x, y, u, v = row if r.random() < 0.5 else (row[1], row[0], row[3], row[2])
    asked = (
        (f"What is the opposite of {x}?", f"Give me the opposite of the word {x}.",
         f"Which word means the opposite of {x}?"),
        (f"Mikä on sanan {u} vastakohta?", f"Kerro sanan {u} vastakohta.", f"Mikä sana on vastakohta sanalle {u}?"),
    )  # fmt: skip
    answered = ((f"The opposite of {x} is {y}.",), (f"Sanan {u} vastakohta on {v}.",))
    return pick(r, language, "opposite", asked, answered)


def translate_word(r: Random, language: str) -> Exchange:
    n = r.choice([*(x.noun for x in ANIMALS), *(f.noun for f in FRUITS), *THINGS.values()])
    to_finnish = r.random() < 0.5
    word, target = (n.en, n.fi) if to_finnish else (n.fi, n.en)
    tongue = ("Finnish", "suomeksi") if to_finnish else ("English", "englanniksi")
    asked = (
        (f'What is "{word}" in {tongue[0]}?', f'How do you say "{word}" in {tongue[0]}?',
         f'Translate the word "{word}" into {tongue[0]}.'),
        (f'Mitä "{word}" on {tongue[1]}?', f'Miten sanotaan "{word}" {tongue[1]}?',
         f'Käännä sana "{word}" {tongue[1]}.'),
    )  # fmt: skip
    answered = ((f'The word "{word}" is "{target}" in {tongue[0]}.',), (f'Sana "{word}" on {tongue[1]} "{target}".',))
    return pick(r, language, "translate_word", asked, answered)


def translate(r: Random, language: str) -> Exchange:
    english, finnish = sentence(r)
    to_finnish = r.random() < 0.5
    source, target = (english, finnish) if to_finnish else (finnish, english)
    tongue = ("Finnish", "suomeksi") if to_finnish else ("English", "englanniksi")
    asked = (
        (f"Translate into {tongue[0]}: {source}", f"Please translate this sentence into {tongue[0]}: {source}"),
        (f"Käännä {tongue[1]}: {source}", f"Käännä tämä lause {tongue[1]}: {source}"),
    )
    exchange = pick(r, language, "translate", asked, ((target,), (target,)))
    # An untranslated sentence is the fault that matches "answers in the other language".
    return Exchange(exchange.task, language, exchange.prompt, exchange.answers, source)


def greet(r: Random, language: str) -> Exchange:
    p = r.choice(PEOPLE)
    time, hyvaa, wish = r.choice((
        ("morning", "huomenta", ("I hope you have a lovely day.", "Toivottavasti sinulla on mukava päivä.")),
        ("afternoon", "päivää", ("It is nice to see you.", "Mukava nähdä sinua.")),
        ("evening", "iltaa", ("I hope you had a good day.", "Toivottavasti päiväsi oli hyvä.")),
        ("night", "yötä", ("Sleep well.", "Nuku hyvin.")),
    ))  # fmt: skip
    asked = (
        (f"Say good {time} politely to {p.name}.", f"Wish {p.name} a good {time}.",
         f"How do I say good {time} to {p.name}?"),
        (f"Toivota {p.allative} kohteliaasti hyvää {hyvaa}.", f"Toivota {p.allative} hyvää {hyvaa}.",
         f"Miten toivotan {p.allative} hyvää {hyvaa}?"),
    )  # fmt: skip
    answered = ((f"Good {time}, {p.name}! {wish[0]}",), (f"Hyvää {hyvaa}, {p.name}! {wish[1]}",))
    return pick(r, language, "greet", asked, answered)


def thank(r: Random, language: str) -> Exchange:
    p = r.choice(PEOPLE)
    n = r.choice([*(f.noun for f in FRUITS if f.single), *THINGS.values()])
    asked = (
        (f"Thank {p.name} for the {n.en}.", f"How do I thank {p.name} for the {n.en}?",
         f"Write a thank-you note to {p.name} for the {n.en}."),
        (f"Kiitä {p.part} {n.local('elative')}.", f"Miten kiitän {p.part} {n.local('elative')}?",
         f"Kirjoita {p.allative} kiitos {n.local('elative')}."),
    )  # fmt: skip
    answered = (
        (f"Thank you for the {n.en}, {p.name}! It was very kind of you.",),
        (f"Kiitos {n.local('elative')}, {p.name}! Se oli hyvin ystävällistä.",),
    )
    return pick(r, language, "thank", asked, answered)


def invite(r: Random, language: str) -> Exchange:
    p, when = r.choice(PEOPLE), r.choice(DAYS)
    asked = (
        (f"Invite {p.name} to the sauna on {when[0]}.", f"Ask {p.name} to come to the sauna on {when[0]}."),
        (f"Kutsu {p.name} saunaan {when[4]}.", f"Pyydä {p.part} saunaan {when[4]}."),
    )
    answered = (
        (f"Hello {p.name}! Would you like to come to the sauna on {when[0]}? You are very welcome.",),
        (f"Hei {p.name}! Haluaisitko tulla saunaan {when[4]}? Olet lämpimästi tervetullut.",),
    )
    return pick(r, language, "invite", asked, answered)


def program(r: Random, language: str) -> Exchange:
    n, form = r.randint(2, 10), r.choice(("add", "multiply", "subtract", "loop", "list"))
    number, x = NUMBERS[n], r.choice(ANIMALS).noun
    language_name = "python"
    if form == "loop":
        word = (x.en, x.fi)
        asked = (f"Write a Python loop that prints the word {x.en} {number[0]} times.",
                 f"Kirjoita Python-silmukka, joka tulostaa sanan {x.fi} {number[1]} kertaa.")  # fmt: skip
        bodies = [f'for i in range({n}):\n    print("{w}")' for w in word]
    elif form == "list":
        kind = r.choice(("mammal", "bird", "insect"))
        members = [m.noun for m in ANIMALS if m.kind == kind][: r.randint(2, 3)]
        size, noun = NUMBERS[len(members)], KINDS[kind][0]
        asked = (
            f"Write a Python list of {size[0]} {noun.en_plural}.",
            f"Kirjoita Python-lista, jossa on {size[1]} {noun.part}.",
        )
        bodies = [f"{noun.en_plural} = [" + ", ".join(f'"{m.en}"' for m in members) + "]",
                  "elaimet = [" + ", ".join(f'"{m.fi}"' for m in members) + "]"]  # fmt: skip
    else:
        sign, english, finnish = {
            "add": ("+", f"adds {number[0]} to a number", f"lisää lukuun {number[1]}"),
            "multiply": ("*", f"multiplies a number by {number[0]}", f"kertoo luvun {number[4]}"),
            "subtract": ("-", f"subtracts {number[0]} from a number", f"vähentää luvusta {number[1]}"),
        }[form]
        name = {"add": "add", "multiply": "multiply", "subtract": "subtract"}[form]
        if r.random() < 0.4:
            language_name = "javascript"
            asked = (f"Write a JavaScript function that {english}.", f"Kirjoita JavaScript-funktio, joka {finnish}.")
            bodies = [f"const {name} = (x) => x {sign} {n};"] * 2
        else:
            asked = (f"Write a Python function that {english}.", f"Kirjoita Python-funktio, joka {finnish}.")
            bodies = [f"def {name}(x):\n    return x {sign} {n}"] * 2
    answers = [f"{intro}\n\n```{language_name}\n{body}\n```"
               for intro, body in zip(("Here is the code:", "Tässä on koodi:"), bodies, strict=True)]  # fmt: skip
    return pick(
        r, language, "program", ((asked[0],), (asked[1],)), ((answers[0],), (answers[1],)), "code", language_name
    )


# How often each task is asked, in parts
TASKS: dict[Task, int] = {
    describe: 9, live: 5, eat: 5, colour: 5, belonging: 4, yes_or_no: 8, bigger: 6, legs: 4, list_some: 5, add: 7,
    together: 6, count: 3, day: 4, month: 5, opposite: 6, translate_word: 7, translate: 16, greet: 6, thank: 8,
    invite: 5, work: 4, story: 12, program: 5,
}  # fmt: skip
FOLLOW_UPS = (live, eat, colour)


def ask(r: Random, language: str, tasks: dict[Task, int] | None = None) -> Exchange:
    """Draw a task by its weight and ask it once."""
    weights = tasks or TASKS
    return r.choices(list(weights), weights=list(weights.values()))[0](r, language)
