"""What can go wrong between a model's name and its text. Nothing here knows how it is shown."""


class LLMError(Exception):
    """The runtime could not do its work; the message says what was found and what to do."""


class ModelLoadError(LLMError):
    """A model's files are missing, damaged, or not of a kind that this runtime runs."""


class UnknownModel(ModelLoadError):
    """No catalogue entry, path or architecture of that name; the message lists the known ones."""


class UnknownQuant(ModelLoadError):
    """A tensor is stored in a format that this runtime does not read."""


class PromptTooLong(LLMError):
    """More tokens were asked for than the model's context or the cache holds."""


class EndpointFailed(LLMError):
    """A model behind an endpoint could not be asked, or did not answer as the protocol says."""


class EngineStopped(LLMError):
    """The engine's thread has ended, by `close` or by a failure, which is then its cause."""
