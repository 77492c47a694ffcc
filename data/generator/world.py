# ruff: noqa: E501  (a row of a table is one line)
"""The village of Lampila: every word the sample data uses, English beside Finnish.

A Finnish noun is given as nominative, genitive, partitive and partitive plural, because those cannot be derived
safely. The local cases and the nominative plural are built on the genitive stem, which is regular in Finnish.
"""

from __future__ import annotations

from dataclasses import dataclass

EN, FI = "en", "fi"
Pair = tuple[str, str]  # the same text in English and in Finnish

_LOCAL_CASES = {"inessive": "ssa", "elative": "sta", "adessive": "lla", "allative": "lle"}


def a(words: str) -> str:
    """Put the indefinite article before English words; no word of this world has a silent first letter."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


@dataclass(frozen=True)
class Noun:
    """A countable noun; `gen`, `part` and `parts` are the genitive, the partitive and the partitive plural."""

    en: str
    en_plural: str
    fi: str
    gen: str
    part: str
    parts: str

    @property
    def fi_plural(self) -> str:
        return self.gen[:-1] + "t"

    def local(self, case: str) -> str:
        """Return a local case of the singular: genitive stem, ending, vowel harmony."""
        ending = _LOCAL_CASES[case]
        back = any(vowel in self.fi for vowel in "aou")
        return self.gen[:-1] + (ending if back else ending.replace("a", "ä"))


@dataclass(frozen=True)
class Place:
    """`at` and `to` are the phrases for being in the place and for going there."""

    at: Pair
    to: Pair


@dataclass(frozen=True)
class Animal:
    noun: Noun
    colour: str
    place: Place
    food: Pair
    kind: str
    size: int
    winter: bool
    habit: Pair


@dataclass(frozen=True)
class Fruit:
    """A fruit, berry or vegetable; of the `single` kinds one makes a present or a snack."""

    noun: Noun
    colour: str
    single: bool


@dataclass(frozen=True)
class Person:
    """`adessive` ("Ainolla"), `allative` ("Ainolle") and `partitive` as the Finnish sentences need them."""

    name: str
    gen: str
    part: str
    adessive: str
    allative: str
    pronoun: str
    job: Pair
    place: Place
    belongings: tuple[tuple[str, str], ...]


def rows(table: str) -> list[list[str]]:
    """Split a table of words into its cells, one line a row."""
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _noun(english: str, finnish: str) -> Noun:
    singular, plural = english.split("/")
    return Noun(singular, plural, *finnish.split())


# English colour: nominative, genitive
COLOURS: dict[str, Pair] = {
    row[0]: (row[1], row[2])
    for row in rows("""
red    | punainen        | punaisen
blue   | sininen         | sinisen
green  | vihreä          | vihreän
yellow | keltainen       | keltaisen
black  | musta           | mustan
white  | valkoinen       | valkoisen
brown  | ruskea          | ruskean
grey   | harmaa          | harmaan
orange | oranssi         | oranssin
purple | violetti        | violetin
pink   | vaaleanpunainen | vaaleanpunaisen
""")
}

PLACES = {
    row[0]: Place((row[1], row[2]), (row[3], row[4]))
    for row in rows("""
forest   | in the forest         | metsässä       | to the forest         | metsään
lake     | on the lake           | järvellä       | to the lake           | järvelle
deep     | in the lake           | järvessä       | to the lake           | järvelle
meadow   | in the meadow         | niityllä       | to the meadow         | niitylle
field    | in the field          | pellolla       | to the field          | pellolle
garden   | in the garden         | puutarhassa    | to the garden         | puutarhaan
yard     | in the yard           | pihalla        | to the yard           | pihalle
barn     | in the barn           | navetassa      | to the barn           | navettaan
stable   | in the stable         | tallissa       | to the stable         | talliin
henhouse | in the henhouse       | kanalassa      | to the henhouse       | kanalaan
pond     | in the pond           | lammessa       | to the pond           | lammelle
house    | in the house          | talossa        | to the house          | taloon
shore    | on the shore          | rannalla       | to the shore          | rannalle
shop     | in the shop           | kaupassa       | to the shop           | kauppaan
school   | at the school         | koulussa       | to the school         | kouluun
library  | in the library        | kirjastossa    | to the library        | kirjastoon
sauna    | in the sauna          | saunassa       | to the sauna          | saunaan
square   | on the market square  | torilla        | to the market square  | torille
bakery   | in the bakery         | leipomossa     | to the bakery         | leipomoon
workshop | in the workshop       | verstaassa     | to the workshop       | verstaaseen
clinic   | at the health centre  | terveysasemalla | to the health centre | terveysasemalle
""")
}

# noun | colour | place | food | kind | size | seen in winter | habit
ANIMALS = [
    Animal(_noun(r[0], r[1]), r[2], PLACES[r[3]], (r[4], r[5]), r[6], int(r[7]), r[8] == "yes", (r[9], r[10]))
    for r in rows("""
fox/foxes | kettu ketun kettua kettuja | orange | forest | mice | hiiriä | mammal | 9 | yes | moves quietly | liikkuu hiljaa
bear/bears | karhu karhun karhua karhuja | brown | forest | berries | marjoja | mammal | 22 | no | sleeps all winter | nukkuu koko talven
moose/moose | hirvi hirven hirveä hirviä | brown | forest | leaves | lehtiä | mammal | 25 | yes | swims well | ui hyvin
hare/hares | jänis jäniksen jänistä jäniksiä | brown | field | grass | ruohoa | mammal | 8 | yes | runs fast | juoksee nopeasti
hedgehog/hedgehogs | siili siilin siiliä siilejä | brown | garden | worms | matoja | mammal | 6 | no | rolls into a ball | kääriytyy palloksi
squirrel/squirrels | orava oravan oravaa oravia | brown | forest | nuts | pähkinöitä | mammal | 5 | yes | climbs trees | kiipeää puihin
wolf/wolves | susi suden sutta susia | grey | forest | meat | lihaa | mammal | 16 | yes | howls at night | ulvoo yöllä
cat/cats | kissa kissan kissaa kissoja | black | house | fish | kalaa | mammal | 7 | yes | sleeps all day | nukkuu koko päivän
dog/dogs | koira koiran koiraa koiria | brown | yard | meat | lihaa | mammal | 14 | yes | guards the house | vartioi taloa
cow/cows | lehmä lehmän lehmää lehmiä | brown | barn | hay | heinää | mammal | 23 | yes | gives milk | antaa maitoa
horse/horses | hevonen hevosen hevosta hevosia | black | stable | oats | kauraa | mammal | 24 | yes | runs fast | juoksee nopeasti
sheep/sheep | lammas lampaan lammasta lampaita | white | field | grass | ruohoa | mammal | 17 | yes | gives wool | antaa villaa
goat/goats | vuohi vuohen vuohta vuohia | white | yard | hay | heinää | mammal | 15 | yes | climbs on rocks | kiipeilee kivillä
pig/pigs | sika sian sikaa sikoja | pink | barn | potatoes | perunoita | mammal | 20 | yes | rolls in the mud | kieriskelee mudassa
mouse/mice | hiiri hiiren hiirtä hiiriä | grey | house | grain | jyviä | mammal | 4 | yes | hides under the floor | piileskelee lattian alla
hen/hens | kana kanan kanaa kanoja | white | henhouse | grain | jyviä | bird | 7 | yes | lays eggs | munii munia
swan/swans | joutsen joutsenen joutsenta joutsenia | white | lake | water plants | vesikasveja | bird | 13 | no | flies south in autumn | lentää syksyllä etelään
duck/ducks | sorsa sorsan sorsaa sorsia | brown | lake | insects | hyönteisiä | bird | 7 | no | swims near the shore | ui lähellä rantaa
owl/owls | pöllö pöllön pöllöä pöllöjä | grey | forest | mice | hiiriä | bird | 7 | yes | flies at night | lentää yöllä
crow/crows | varis variksen varista variksia | grey | yard | seeds | siemeniä | bird | 6 | yes | caws loudly | raakkuu kovaa
pike/pike | hauki hauen haukea haukia | green | deep | small fish | pieniä kaloja | fish | 10 | no | swims fast | ui nopeasti
perch/perch | ahven ahvenen ahventa ahvenia | green | deep | insects | hyönteisiä | fish | 5 | no | swims in a shoal | ui parvessa
frog/frogs | sammakko sammakon sammakkoa sammakoita | green | pond | flies | kärpäsiä | amphibian | 3 | no | croaks in spring | kurnuttaa keväällä
bee/bees | mehiläinen mehiläisen mehiläistä mehiläisiä | yellow | meadow | nectar | mettä | insect | 1 | no | makes honey | tekee hunajaa
butterfly/butterflies | perhonen perhosen perhosta perhosia | yellow | meadow | nectar | mettä | insect | 2 | no | flies from flower to flower | lentää kukasta kukkaan
ant/ants | muurahainen muurahaisen muurahaista muurahaisia | black | forest | seeds | siemeniä | insect | 0 | no | builds a nest | rakentaa pesän
""")
]
BIG = 13  # animals of this size and above are called big
# kind: noun, number of legs
KINDS: dict[str, tuple[Noun, int]] = {
    "mammal": (_noun("mammal/mammals", "nisäkäs nisäkkään nisäkästä nisäkkäitä"), 4),
    "bird": (_noun("bird/birds", "lintu linnun lintua lintuja"), 2),
    "fish": (_noun("fish/fish", "kala kalan kalaa kaloja"), 0),
    "insect": (_noun("insect/insects", "hyönteinen hyönteisen hyönteistä hyönteisiä"), 6),
    "amphibian": (_noun("amphibian/amphibians", "sammakkoeläin sammakkoeläimen sammakkoeläintä sammakkoeläimiä"), 4),
}

_ONLY_MANY = ("blueberry/blueberries", "lingonberry/lingonberries", "pea/peas")
FRUITS = [
    Fruit(_noun(r[0], r[1]), r[2], r[0] not in _ONLY_MANY)
    for r in rows("""
apple/apples | omena omenan omenaa omenoita | red
pear/pears | päärynä päärynän päärynää päärynöitä | green
plum/plums | luumu luumun luumua luumuja | purple
blueberry/blueberries | mustikka mustikan mustikkaa mustikoita | blue
strawberry/strawberries | mansikka mansikan mansikkaa mansikoita | red
lingonberry/lingonberries | puolukka puolukan puolukkaa puolukoita | red
lemon/lemons | sitruuna sitruunan sitruunaa sitruunoita | yellow
carrot/carrots | porkkana porkkanan porkkanaa porkkanoita | orange
potato/potatoes | peruna perunan perunaa perunoita | yellow
tomato/tomatoes | tomaatti tomaatin tomaattia tomaatteja | red
cucumber/cucumbers | kurkku kurkun kurkkua kurkkuja | green
pea/peas | herne herneen hernettä herneitä | green
""")
]

# Things that one can carry
THINGS = {
    r[0].split("/")[0]: _noun(r[0], r[1])
    for r in rows("""
ball/balls | pallo pallon palloa palloja
book/books | kirja kirjan kirjaa kirjoja
hat/hats | hattu hatun hattua hattuja
coat/coats | takki takin takkia takkeja
cup/cups | kuppi kupin kuppia kuppeja
basket/baskets | kori korin koria koreja
key/keys | avain avaimen avainta avaimia
lamp/lamps | lamppu lampun lamppua lamppuja
scarf/scarves | huivi huivin huivia huiveja
backpack/backpacks | reppu repun reppua reppuja
umbrella/umbrellas | sateenvarjo sateenvarjon sateenvarjoa sateenvarjoja
boat/boats | vene veneen venettä veneitä
""")
}


def _person(forms: str, pronoun: str, english_job: str, finnish_job: str, place: str, belongings: str) -> Person:
    name, gen, part, adessive, allative = forms.split()
    things = tuple((thing, colour) for colour, thing in (item.split() for item in belongings.split(",")))
    return Person(name, gen, part, adessive, allative, pronoun, (english_job, finnish_job), PLACES[place], things)


# name, genitive, partitive, adessive, allative | pronoun | job | place | belongings
PEOPLE = [
    _person(*r)
    for r in rows("""
Aino Ainon Ainoa Ainolla Ainolle | she | teacher | opettaja | school | blue hat, red book, green cup
Eino Einon Einoa Einolla Einolle | he | fisherman | kalastaja | lake | white boat, yellow coat, grey scarf
Helmi Helmin Helmiä Helmillä Helmille | she | baker | leipuri | bakery | white hat, yellow cup, red scarf
Onni Onnin Onnia Onnilla Onnille | he | farmer | maanviljelijä | field | brown hat, black key, green coat
Liisa Liisan Liisaa Liisalla Liisalle | she | librarian | kirjastonhoitaja | library | purple scarf, green book, yellow lamp
Matti Matin Mattia Matilla Matille | he | carpenter | puuseppä | workshop | red boat, grey coat, black lamp
Veera Veeran Veeraa Veeralla Veeralle | she | doctor | lääkäri | clinic | white coat, blue backpack, red umbrella
Otto Oton Ottoa Otolla Otolle | he | shopkeeper | kauppias | shop | green hat, brown basket, grey key
Saara Saaran Saaraa Saaralla Saaralle | she | gardener | puutarhuri | garden | green backpack, orange hat, yellow basket
Kalle Kallen Kallea Kallella Kallelle | he | beekeeper | mehiläishoitaja | meadow | white hat, purple backpack, brown book
""")
]
