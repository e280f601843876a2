"""A question that leans on the conversation, in words that stand by themselves: so that a search understands it.

By rules: where it has words that point back ("it", "those"), an opening that goes on ("what about") or hardly a word of
its own, what the user asked before is added. Or a model is asked. Either way the question itself is sought too, and
what comes from here beside it. This file knows English and messages. It knows nothing of indexes or policies.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trackbed.llm.types import Generator, Message, SamplingParams, Usage
from trackbed.rails.deadline import within
from trackbed.rails.sentences import STOP_WORDS, WORD, content, sentences

NONE, RULES = "none", "rules"  # what a policy may say of it, beside the name of a model
MESSAGES = 6  # the last of the conversation that are looked at
CHARACTERS = 2000  # of each
TOPIC = 12  # words that are added at most
OWN = 1  # content words with which a question says hardly anything
SECONDS = 4.0
PARAMS = SamplingParams(temperature=0.0, max_tokens=64, stop=("\n",))
LONGEST = 400  # characters of a model's question

POINTING = frozenset(
    """it its itself they them their theirs this that these those he him his she her hers there then one ones such same
    former latter both either neither another others else""".split()  # noqa: SIM905
)
OPENING = re.compile(
    r"\s{0,9}(?:and|but|so|or|also|then|what about|how about|what if|why not|which one|tell me more|more|go on|"
    r"for example|such as|like what|really|anything else)\b",
    re.IGNORECASE,
)
# "Is it possible", "the fact that", "what is there": words that point at nothing.
EMPTY = re.compile(
    r"\b(?:is|was|does|do) (?:it|there)(?= (?:possible|true|okay|ok|safe|a |an |any ))|"
    r"\b(?:there (?:is|are)|(?:is|are) there)\b|(?<=\w )that(?= (?:is|are|i|we|you|can|has|have)\b)",
    re.IGNORECASE,
)
PROMPT = """Conversation:
{said}

Last question: {question}

Write the last question once more, so that it is understood without the conversation. Answer with the question alone."""


class Rewritten(NamedTuple):
    """What a model made of a question."""

    also: tuple[str, ...]  # empty where there was nothing to rewrite, or the model failed
    usage: Usage | None = None
    error: str = ""  # why the question stands alone: the kind of exception, or what was wrong with the answer


def rewrite(question: str, history: Sequence[Message]) -> tuple[str, ...]:
    """What is to be sought beside the question: nothing where it stands by itself, or nobody has asked before.

    >>> asked = (Message("user", "How do I add a rail?"), Message("assistant", "Write a class."))
    >>> rewrite("And where is it tested?", asked)
    ('add rail: And where is it tested?',)
    >>> rewrite("Which file formats can be ingested?", asked)
    ()
    """
    if not leans(question):
        return ()
    known = set(content(question[:CHARACTERS]).stems)
    topic: list[str] = []
    for asked in _asked(history):
        # Words of earlier questions stand before those of later ones, where there is room.
        new = [word for word in _words(asked) if not known & set(content(word).stems)]
        known |= {stem for word in new for stem in content(word).stems}
        topic = [*new[: TOPIC - len(topic)], *topic]
        if not leans(asked):
            break
    return (f"{' '.join(topic)}: {question.strip()}",) if topic else ()


def leans(question: str) -> bool:
    """Whether a question needs what was said before it to be understood."""
    words = [match.group().lower() for match in WORD.finditer(EMPTY.sub(" ", question[:CHARACTERS]))]
    if not words:
        return False
    own = [word for word in words if word not in STOP_WORDS and word not in POINTING]
    return len(own) <= OWN or OPENING.match(question) is not None or not POINTING.isdisjoint(words)


async def ask_rewrite(
    model: Generator, question: str, history: Sequence[Message], seconds: float = SECONDS
) -> Rewritten:
    """What a model makes of the question. It raises nothing: where the model fails, the question stands alone.

    Nothing that the conversation does not speak of is sought: an answer that strays from it counts as a failure.
    """
    recent = [message for message in history if message.role in ("user", "assistant")][-MESSAGES:]
    if not recent:
        return Rewritten(())
    said = "\n".join(f"{message.role}: {_shortened(message.content)}" for message in recent)
    prompt = (Message("user", PROMPT.format(said=said, question=_shortened(question))),)
    try:
        completion = await within(seconds, asyncio.ensure_future(model.generate(prompt, PARAMS)))
    except Exception as error:  # noqa: BLE001 - whatever it is, the question is there
        return Rewritten((), error=type(error).__name__)
    text = " ".join(completion.text.split()).removeprefix("Last question:").strip(" \"'")
    if not text or len(text) > LONGEST:
        return Rewritten((), completion.usage, "no question" if not text else "too long")
    heard = set(content(f"{said}\n{question}").stems)
    spoken = content(text).stems
    if sum(stem in heard for stem in spoken) < len(spoken) or not spoken:
        return Rewritten((), completion.usage, "strayed")
    return Rewritten(() if text.lower() == question.strip().lower() else (text,), completion.usage)


def _asked(history: Sequence[Message]) -> Iterator[str]:
    """What the user has asked lately, the last first."""
    for message in reversed(history[-MESSAGES:]):
        if message.role == "user":
            yield message.content[:CHARACTERS]


def _words(asked: str) -> list[str]:
    """The content words of what was asked, in order, none twice."""
    found: dict[str, str] = {}
    for sentence in sentences(asked):
        for match in WORD.finditer(sentence.text):
            if (word := match.group()).lower() not in STOP_WORDS | POINTING:
                found.setdefault(word.lower(), word)
    return list(found.values())


def _shortened(text: str) -> str:
    return " ".join(text[:CHARACTERS].split())
