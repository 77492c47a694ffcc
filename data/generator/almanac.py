"""Numbers, days, months, seasons and opposites of the sample data, English beside Finnish."""

from __future__ import annotations

from dataclasses import dataclass

from .world import Pair, rows

# number: English, Finnish nominative, elative ("from"), illative ("to"), adessive ("by")
NUMBERS = rows("""
zero     | nolla        | nollasta     | nollaan       | nollalla
one      | yksi         | yhdestä      | yhteen        | yhdellä
two      | kaksi        | kahdesta     | kahteen       | kahdella
three    | kolme        | kolmesta     | kolmeen       | kolmella
four     | neljä        | neljästä     | neljään       | neljällä
five     | viisi        | viidestä     | viiteen       | viidellä
six      | kuusi        | kuudesta     | kuuteen       | kuudella
seven    | seitsemän    | seitsemästä  | seitsemään    | seitsemällä
eight    | kahdeksan    | kahdeksasta  | kahdeksaan    | kahdeksalla
nine     | yhdeksän     | yhdeksästä   | yhdeksään     | yhdeksällä
ten      | kymmenen     | kymmenestä   | kymmeneen     | kymmenellä
""")
for _english, _finnish in zip(
    ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"],
    ["yksi", "kaksi", "kolme", "neljä", "viisi", "kuusi", "seitsemän", "kahdeksan", "yhdeksän"],
    strict=True,
):
    NUMBERS.append([_english, _finnish + "toista"])
NUMBERS.append(["twenty", "kaksikymmentä"])
ORDINALS = rows("""
first    | ensimmäinen
second   | toinen
third    | kolmas
fourth   | neljäs
fifth    | viides
sixth    | kuudes
seventh  | seitsemäs
eighth   | kahdeksas
ninth    | yhdeksäs
tenth    | kymmenes
eleventh | yhdestoista
twelfth  | kahdestoista
""")

# English, Finnish nominative, genitive, partitive, essive ("on Monday")
DAYS = rows("""
Monday    | maanantai   | maanantain  | maanantaita  | maanantaina
Tuesday   | tiistai     | tiistain    | tiistaita    | tiistaina
Wednesday | keskiviikko | keskiviikon | keskiviikkoa | keskiviikkona
Thursday  | torstai     | torstain    | torstaita    | torstaina
Friday    | perjantai   | perjantain  | perjantaita  | perjantaina
Saturday  | lauantai    | lauantain   | lauantaita   | lauantaina
Sunday    | sunnuntai   | sunnuntain  | sunnuntaita  | sunnuntaina
""")
MONTHS = list(
    zip(
        [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ],
        [
            stem + "kuu"
            for stem in [
                "tammi",
                "helmi",
                "maalis",
                "huhti",
                "touko",
                "kesä",
                "heinä",
                "elo",
                "syys",
                "loka",
                "marras",
                "joulu",
            ]
        ],
        strict=True,
    )
)


@dataclass(frozen=True)
class Season:
    """`gen` and `during` are the Finnish genitive and adessive; `weather` is what is usual, `sky` what one day was."""

    en: str
    fi: str
    gen: str
    during: str
    day: str
    weather: Pair
    adjectives: tuple[Pair, ...]
    sky: tuple[Pair, ...]


SEASONS = [
    Season(
        "winter", "talvi", "talven", "talvella", "talvipäivänä",
        ("it is cold and it often snows", "on kylmää ja usein sataa lunta"),
        (("cold", "kylmä"), ("snowy", "luminen"), ("clear", "kirkas")),
        (("It was snowing.", "Satoi lunta."), ("The lake was frozen.", "Järvi oli jäässä."),
         ("The roofs were white with snow.", "Katot olivat valkoisina lumesta.")),
    ),
    Season(
        "spring", "kevät", "kevään", "keväällä", "kevätpäivänä",
        ("the snow melts and the days grow longer", "lumi sulaa ja päivät pitenevät"),
        (("windy", "tuulinen"), ("bright", "valoisa"), ("cool", "viileä")),
        (("The snow was melting.", "Lumi suli."), ("The birds were singing.", "Linnut lauloivat."),
         ("The ice on the lake was thin.", "Järven jää oli ohut.")),
    ),
    Season(
        "summer", "kesä", "kesän", "kesällä", "kesäpäivänä",
        ("it is warm and the sun shines late", "on lämmintä ja aurinko paistaa myöhään"),
        (("warm", "lämmin"), ("sunny", "aurinkoinen"), ("hot", "kuuma")),
        (("The sun was shining.", "Aurinko paistoi."), ("The flowers were in bloom.", "Kukat kukkivat."),
         ("A light wind was blowing from the lake.", "Järveltä puhalsi kevyt tuuli.")),
    ),
    Season(
        "autumn", "syksy", "syksyn", "syksyllä", "syyspäivänä",
        ("it often rains and the leaves fall", "sataa usein ja lehdet putoavat"),
        (("rainy", "sateinen"), ("foggy", "sumuinen"), ("cloudy", "pilvinen")),
        (("It was raining.", "Satoi vettä."), ("Yellow leaves were falling.", "Keltaisia lehtiä putoili."),
         ("There was fog on the lake.", "Järvellä oli sumua.")),
    ),
]  # fmt: skip


def season_of(month: int) -> Season:
    """Return the season of a month counted from 0 for January."""
    return SEASONS[(month + 1) % 12 // 3]


# Both directions are asked
OPPOSITES = [
    (row[0], row[1], row[2], row[3])
    for row in rows("""
big      | small     | iso       | pieni
old      | new       | vanha     | uusi
hot      | cold      | kuuma     | kylmä
fast     | slow      | nopea     | hidas
long     | short     | pitkä     | lyhyt
high     | low       | korkea    | matala
bright   | dark      | valoisa   | pimeä
heavy    | light     | painava   | kevyt
happy    | sad       | iloinen   | surullinen
dry      | wet       | kuiva     | märkä
clean    | dirty     | puhdas    | likainen
full     | empty     | täysi     | tyhjä
wide     | narrow    | leveä     | kapea
hard     | soft      | kova      | pehmeä
quiet    | loud      | hiljainen | äänekäs
easy     | difficult | helppo    | vaikea
strong   | weak      | vahva     | heikko
sweet    | sour      | makea     | hapan
thick    | thin      | paksu     | ohut
good     | bad       | hyvä      | huono
""")
]
