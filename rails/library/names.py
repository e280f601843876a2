"""Names of people and places in a text, by a model that reads whole sentences: spaCy's, through Presidio.

Both come with the extra `pii`, and are loaded with the first rail that looks for names. The model has to be installed
already: nothing is fetched here. How sure the model is of a name is not known here, only what it takes for one.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

NAMES = ("PERSON", "LOCATION")  # what Presidio calls them
# What takes a text and the kinds to find, and gives the kind, start and end of each: `text[start:end]`.
Analyze = Callable[[str, list[str]], Iterable[tuple[str, int, int]]]


def missing(model: str) -> str:
    """What has to be installed before names are found with this spaCy model; empty when nothing has to be."""
    if find_spec("presidio_analyzer") is None or find_spec("spacy") is None:
        return "PERSON and LOCATION need the extra 'pii', which is not installed: pip install 'trackbed[pii]'"
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
