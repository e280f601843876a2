"""A small English vocabulary, which tells a text from what only decodes to letters, and from one in another language.

It holds the commonest words and those that orders to a model are made of. It knows nothing of how a text was hidden.
"""

from trackbed.rails.sentences import STOP_WORDS

# The words of attacks, which one sees them by.
ORDERS = frozenset(
    """ignore ignores ignoring ignored disregard disregarding forget override overrides overriding bypass bypassing
    previous previously prior earlier preceding initial original system developer instruction instructions prompt
    prompts guideline guidelines directive directives command commands restriction restrictions restricted
    unrestricted limitation limitations filter filters filtered unfiltered safeguard safeguards censorship uncensored
    policy policies training programming reveal reveals repeat display disclose output response respond pretend
    roleplay jailbreak jailbroken character assistant language chatbot hidden secret secrets password passwords
    message messages conversation everything anything nothing without warning warnings disclaimer apologize refuse
    comply obey illegal harmful unethical ethics ethical morals safety weapon weapons explosive explosives poison
    malware virus hacking murder suicide attack attacks""".split()  # noqa: SIM905
)
COMMON = frozenset(
    """answer apply ask back because become begin best better bomb book bring build call case change chat child
    come computer content day decode different drug drugs enable end enter even every execute explain fact fake
    feel find first follow following free full game gave general gets getting give given gives go goes going
    good got great group guide hack hand happen help here high hold home house human important information
    instead kill kind know large last later law learn leave left less let letter life limit line list listen
    little live long look made make makes making man mean means might mode model money most move must name need
    never new next now number off old once one open order orders own page part pass passing people person phrase
    place plan play please point possible present print problem program public put question questions read
    reading real really reply right rule rules run said say saying says school secretly see seem send sentence
    set should show shown side sir small speak start state steal step steps still stop story stuff support sure
    take talk tell text thank thanks thing things think those thought three time today told translate true try
    turn two under understand until user users using want wants watch way week well went were while whole word
    words work world would write writing written wrong year years yes""".split()  # noqa: SIM905
)
WORDS = STOP_WORDS | ORDERS | COMMON
TELLING = frozenset(word for word in ORDERS if len(word) >= 6)
PREFIXES = frozenset(word[:end] for word in WORDS if len(word) > 3 for end in range(1, len(word)))  # of longer words
_LONGEST = max(map(len, WORDS))
ELSEWHERE = frozenset(  # words of other languages too
    """a an as come do fine hand he human i in is land letter man me mode model no normal on or plan program so state
    system this to war was will""".split()  # noqa: SIM905
)
OURS_ALONE = (WORDS | frozenset(("how", "someone", "somebody", "i'm", "i've", "don't", "it's", "what's"))) - ELSEWHERE
SOME = 6  # words or letters, of which one can say something
EVERYWHERE = 0.12  # the share of an English text that its commonest words are, at least
_SPLIT = 2000  # letters of one stretch


def known(word: str) -> bool:
    """Whether a word, in small letters, is one of ours."""
    return word in WORDS


def telling(word: str) -> bool:
    """Whether it is one that texts are seldom made of by chance: of six letters or more, and of attacks."""
    return word in TELLING


def is_foreign(text: str) -> bool:
    """Whether a text has six words or more and hardly one that every English text has, or is in other letters.

    No detector of languages: that costs a second to load. Rows of names and commands look foreign too.

    >>> is_foreign("Wie komme ich von hier zum Bahnhof?"), is_foreign("How do I get from here to the station?")
    (True, False)
    """
    letters = [c for c in text if c.isalpha()]
    latin = sum(c < "\u0250" for c in letters)
    if len(letters) >= SOME and latin < len(letters) / 2:
        return True
    words = text.lower().split()[:200]
    ours = sum(word.strip(".,;:!?\"'()") in OURS_ALONE for word in words)
    return len(words) >= SOME and ours < len(words) * EVERYWHERE


def split(letters: str) -> list[str]:
    """The words of small letters that are written without spaces: the most letters in the fewest words of ours.

    What is in no word is a word of its own. Time is linear in the letters.

    >>> split("ignoreallprevious")
    ['ignore', 'all', 'previous']
    """
    letters, rest = letters[:_SPLIT], letters[_SPLIT:]
    # The best score of the first i letters, and where the last word of that begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(letters) + 1):
        score, start = best[end - 1][0] - 1, end - 1
        for begin in range(max(0, end - _LONGEST), end - 1):
            if letters[begin:end] in WORDS and (gain := best[begin][0] + (end - begin) - 0.5) > score:
                score, start = gain, begin
        best.append((score, start))
    words, end = list[str](), len(letters)
    while end:
        start = best[end][1]
        words.append(letters[start:end])
        end = start
    return _gathered(words[::-1]) + ([rest] if rest else [])


def _gathered(words: list[str]) -> list[str]:
    """The words, with neighbouring single letters together, save those that are words."""
    found = list[str]()
    loose = False  # whether the last one is of such letters
    for word in words:
        if len(word) == 1 and loose:
            found[-1] += word
        else:
            found.append(word)
            loose = len(word) == 1
    return found
