"""The words of the generated dialogues, and phrases with alternatives."""

from __future__ import annotations

import re
from random import Random

PEOPLE = tuple(
    "Tom Anna Ben Mia Sam Lea Max Zoe Ada Eva Ivan Kim Lars Nora Omar Paul Rosa Tina Uwe Vera Jack Emma Liam Olga Hugo "
    "Clara David Fatima George Helen Irene James Karim Laura Maria Noah Peter Sofia Theo Yusuf Alice Bob Carol Dan Erik "
    "Grace Ravi Mei Chen Aisha Diego Elena Felix Greta Hana Jonas Katya Leo Marta Nils".split()
)
CITIES = tuple(
    "Paris Rome Oslo Berlin Madrid London Vienna Prague Lisbon Dublin Athens Cairo Tokyo Delhi Lima Boston Chicago "
    "Denver Dallas Miami Seattle Toronto Sydney Kyoto Seoul Moscow Warsaw Geneva Milan Porto Lyon Bonn Hamburg Munich "
    "Zurich Helsinki Riga Malta Nairobi Lagos".split()
)
THINGS = tuple(
    "apples pens books eggs coins cards stamps shells marbles cookies pencils stickers oranges flowers candles balls "
    "cups plates toys bricks lemons buttons ribbons photos tickets pears plums muffins pies rocks leaves seeds".split()
)
COLORS = tuple("red blue green yellow black white orange purple pink brown gray silver gold".split())
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FRUIT = tuple("apple pear plum lemon orange grape cherry melon peach mango banana kiwi fig date lime".split())
WORDS = tuple(
    """time year people way day man thing woman life child world school state family student group country problem hand
    part place case week company system program question work government number night point home water room mother area
    money story fact month lot right study book eye job word business issue side kind head house service friend father
    power hour game line end member law car city name team minute idea body information back parent face others level
    office door health person art war history party result change morning reason research girl guy moment air teacher
    force education foot boy age policy process music market sense nation plan college interest death experience effect
    use class control care field development role effort rate heart drug show leader light voice wife police mind price
    report decision son view relationship town road arm difference value building action season society tax director
    position player record paper space ground form event official matter center couple site project activity star table
    need court oil situation cost industry figure street image phone data picture practice piece land product doctor wall
    patient worker news test movie north love support technology step baby computer type attention film tree source
    organization hair look window culture chance brother energy period course summer hospital plant opportunity term
    letter condition choice rule south floor campaign material population call economy medical fire river stone bird fish
    horse bread milk sugar salt garden forest mountain island bridge train plane ship engine wheel metal glass silver
    winter spring autumn rain snow wind cloud storm ocean beach coast desert valley hill lake stream pond flower grass
    leaf root seed fruit apple lemon orange banana cherry grape peach plum carrot potato onion pepper tomato cheese
    butter coffee tea juice wine beer soup meat chicken cat dog cow sheep goat pig mouse rabbit tiger lion bear wolf fox
    eagle duck goose frog snake turtle spider ant bee planet moon sun sky earth sand rock coal iron copper gold paint
    brush pencil pen ink board map clock watch lamp candle mirror chair sofa bed pillow blanket carpet curtain kitchen
    bottle cup plate bowl spoon fork knife oven basket box bag coat shirt dress hat shoe sock glove ring crown king queen
    prince castle tower gate fence path market shop store bank hotel library museum theater church temple station airport
    harbor farm factory mill mine camp tent boat canoe kayak bike truck van bus cab taxi wagon rope chain nail hammer
    screw drill saw ladder bucket broom towel soap brave calm clean clever cold cool dark deep dry early easy fast fine
    fresh full good great happy hard heavy high hot kind large late lazy light long loud low neat new nice old open plain
    poor proud quick quiet rare rich rough sad safe sharp short slow small smart soft sour strong sweet tall thick thin
    tiny warm weak wet wide wild wise young ask bring build buy carry catch clean climb close come cook count cut dance
    draw drink drive eat fall feel fight find fix fly follow forget give go grow hear help hide hit hold jump keep kick
    know laugh learn leave listen live look lose make meet move open pay play pull push read ride run say see sell send
    sing sit sleep speak stand start stay stop swim take talk teach tell think throw touch travel try turn wait walk want
    wash wear win write""".split()
)
"""Common English words, for spelling, and so that the model has read more than it is asked."""
FUNCTION_WORDS = tuple(
    "the a and of to in is you that it for on are as with be at this have from or by not but what all can if which their "
    "will about how up out them then these so some would make like into has more two no could my than been who its now "
    "may any only new also after first when very just where most over your such here should must each never always "
    "before between because during without within please do we they user agent tool answer task input output".split()
)

_PIECES = tuple(
    sorted(
        {word[start : start + size] for word in WORDS for size in (2, 3, 4) for start in range(len(word) - size + 1)}
    )
)
"""What stands in common words."""


def pick(rng: Random, template: str) -> str:
    """A template with one alternative of each `[a|b|c]`, innermost first."""
    while "[" in template:
        template = re.sub(r"\[([^\[\]]*)\]", lambda match: rng.choice(match[1].split("|")), template)
    return template


def one_of(rng: Random, templates: tuple[str, ...]) -> str:
    """One of several templates, with its alternatives chosen."""
    return pick(rng, rng.choice(templates))


def other(rng: Random, values: tuple[str, ...], value: str) -> str:
    """One of the values that is not `value`."""
    return rng.choice([each for each in values if each != value])


def babble(rng: Random, sentences: int) -> str:
    """Sentences without meaning, of common words."""
    made = []
    for _ in range(sentences):
        words = [rng.choice(FUNCTION_WORDS if rng.random() < 0.55 else WORDS) for _ in range(rng.randint(3, 14))]
        made.append(" ".join(words).capitalize() + rng.choice((".", ".", ".", "!", ":")))
    return rng.choice((" ", " ", "\n", "\n- ")).join(made)


def pseudo_word(rng: Random, letters: int) -> str:
    """A word that does not exist, of about this many letters: of syllables, or of pieces of common words."""
    made = ""
    while len(made) < letters:
        if rng.random() < 0.4:
            made += rng.choice("bcdfghjklmnprstvwxyz") + rng.choice("aeiou") + rng.choice(("", "", *"lmnrst"))
        else:
            made += rng.choice(_PIECES)
    return made[:letters]
