"""Rude messages and others that only sound like it: what a judge of tone learns beside hate speech.

Insults, threats and abuse are said to somebody or of somebody. Swearing at a thing, at oneself or at nobody is not
toxic here; nor is speaking of insults, or of violence that happened. All of it is made of templates written here.
"""

import random

from trackbed.llm.tuning.rows import Row, authored

NOUNS = (
    *("idiot", "moron", "loser", "clown", "fool", "imbecile", "parasite", "pig", "rat", "snake", "coward", "liar"),
    *("dimwit", "halfwit", "bastard", "jerk", "creep", "piece of garbage", "waste of space", "piece of shit"),
    *("disgrace", "joke of a human being", "brainless sheep", "asshole"),
)
ADJECTIVES = (
    *("stupid", "pathetic", "disgusting", "worthless", "dumb", "ugly", "useless", "miserable", "filthy", "repulsive"),
    *("ignorant", "spineless", "hopeless", "vile"),
)
PEOPLE = ("my sister", "my boss", "the driver", "this moderator", "your kid", "the new guy", "that teacher", "Kevin")
THINGS = (
    *("printer", "phone", "car", "film", "game", "book", "app", "meeting", "weather", "sandwich", "update", "website"),
    *("laptop", "song", "train", "hotel"),
)
INSULTS, THREATS, MILD = (authored("tone", name) for name in ("insults", "threats", "mild"))


def tone_rows(count: int, seed: int = 0) -> list[Row]:
    """So many of each: insults, threats, and what is neither; the same ones each time."""
    chance = random.Random(seed)  # noqa: S311
    rows = []
    for templates, kinds in ((INSULTS, ("insult",)), (THREATS, ("threat",)), (MILD, ())):
        for template in chance.choices(templates, k=count):
            text = template.format(
                noun=chance.choice(NOUNS),
                adj=chance.choice(ADJECTIVES),
                person=chance.choice(PEOPLE),
                thing=chance.choice(THINGS),
            )
            share = chance.random()
            text = text.lower().rstrip(".") if share < 0.25 else text.upper() if share < 0.3 else text
            rows.append(Row(text, "", bool(kinds), kinds, "authored-tone", "CC0-1.0", not kinds, 0))
    return rows
