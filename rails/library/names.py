"""Names of people, places and streets in a text, by a model that reads whole sentences.

It is one of the policy's models, which says what it finds as JSON, as the embedded `minilm-names` does; or spaCy's,
through Presidio. These come with the extra `pii`, and are loaded with the first rail that looks for names: the spaCy
model has to be installed already. How sure a model is of a name is not known here, only what it takes for one.
"""

import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

from trackbed.llm.types import Generator, Message, SamplingParams
from trackbed.rails.errors import RailFailed

PRESIDIO = ("PERSON", "LOCATION")  # what Presidio calls them, and finds
NAMES = (*PRESIDIO, "STREET_ADDRESS")
ANSWER = SamplingParams(max_tokens=4096)
# What takes a text and the kinds to find, and gives the kind, start and end of each: `text[start:end]`.
Analyze = Callable[[str, list[str]], Iterable[tuple[str, int, int]]]


def missing(model: str) -> str:
    """What has to be installed before names are found with this spaCy model; empty when nothing has to be."""
    if find_spec("presidio_analyzer") is None or find_spec("spacy") is None:
        return (
            "names need a model: write `models: {names: minilm-names}` and give this rail `model: names`. A spaCy "
            "model does too, with the extra 'pii', which is not installed: pip install 'trackbed[pii]'"
        )
    if find_spec(model) is None:
        return f"the spaCy model {model!r} is not installed: python -m spacy download {model}"
    return ""


@cache
def presidio(model: str) -> Analyze:
    """Presidio over an installed spaCy model, whose name begins with its language: en_core_web_sm."""
    # Imported here, since only who looks for names has them installed.
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    language = model.partition("_")[0]
    models = [{"lang_code": language, "model_name": model}]
    nlp = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    # Its other recognisers find what this package finds by proof.
    recognizers = [SpacyRecognizer(supported_language=language)]
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[language])
    engine: Any = AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=[language])  # Any: untyped

    def analyze(text: str, kinds: list[str]) -> Iterable[tuple[str, int, int]]:
        return [(r.entity_type, r.start, r.end) for r in engine.analyze(text=text, language=language, entities=kinds)]

    return analyze


async def names_by(model: Generator, text: str) -> list[tuple[str, int, int]]:
    """The names that one of the policy's models finds: kind, start and end, `text[start:end]`.

    Raises RailFailed where its answer is none that can be read, and what the model raises.
    """
    answer = await model.generate((Message("user", text),), ANSWER)
    try:
        said = json.loads(answer.text)
        found = [(str(name["kind"]), int(name["start"]), int(name["end"])) for name in said]
        if not isinstance(said, list):
            raise TypeError("it is no list")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RailFailed("a model that is to find names has to answer with a JSON list of kind, start, end") from error
    if any(not 0 <= start < end <= len(text) for _, start, end in found):
        raise RailFailed("the model has found a name outside of the text")
    return found
