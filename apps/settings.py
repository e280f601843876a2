"""Where things are kept and how much is used: from `trackbed.toml`, then from the environment, which wins.

```toml
policy = "support.yaml"
[engine]
threads = 4
```

The same in the environment: TRACKBED_POLICY, TRACKBED_ENGINE_THREADS. This is the only file that reads the
environment. It composes what other files configure, and opens nothing.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from trackbed.llm.config import EngineConfig

FILE = "trackbed.toml"
PREFIX = "TRACKBED_"
CONFIG = "TRACKBED_CONFIG"
ISA = "TRACKBED_ISA"  # which kernels run; the native code reads it
# What libraries look at when they are imported: nobody spins while waiting, warns of a fork, or asks a hub.
QUIET = {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class SettingsError(Exception):
    """A setting is not known or does not fit; the message names where it stands."""


class Settings(BaseModel):
    """What a deployment decides beside its policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cache: Path = Field(default_factory=lambda: platformdirs.user_cache_path("trackbed"))
    """What can be fetched or made again: models, and the index of the shipped pages."""
    data: Path = Field(default_factory=lambda: platformdirs.user_data_path("trackbed"))
    """What is yours: the indexes that `trackbed ingest` writes."""
    policy: str = "default"
    """The policy that is used when none is named: a shipped name, a file or a folder."""
    postgres: SecretStr | None = None
    """The database of indexes in PostgreSQL: postgresql://USER:PASSWORD@HOST:PORT/DATABASE."""
    embedder: str = "all-minilm-l6-v2"
    """The model that turns passages and questions into vectors."""
    trace: Path | None = None
    """The file to which `chat`, `serve` and `judge` append a line for each turn; none is written unless it is given."""
    trace_full: bool = False
    """Whether these lines hold the texts too, as a replay needs, whatever the policy's `trace` says."""
    bench_python: Path | None = None
    """The Python that has the rivals of `trackbed bench`, unless this one does."""
    engine: EngineConfig = EngineConfig()
    """How each model runs: threads, device, and how much at once."""

    @property
    def models(self) -> Path:
        """The folder of the models."""
        return self.cache / "models"

    @property
    def indexes(self) -> Path:
        """The folder of the indexes that have a name."""
        return self.data / "indexes"


def load_settings(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a file and of the environment's TRACKBED_ variables.

    Without a file, it is the one that TRACKBED_CONFIG names, else `trackbed.toml` in the current folder, if there
    is one. Paths in it are relative to it. Raises SettingsError.
    """
    given = {key: value for key, value in environment.items() if key.startswith(PREFIX) and key not in (CONFIG, ISA)}
    if file is None and environment.get(CONFIG):
        file = Path(environment[CONFIG])
    if file is None and Path(FILE).is_file():
        file = Path(FILE)
    written = _read(file) if file else {}
    engine = written.get("engine", {})
    for variable, value in given.items():
        part, _, name = variable.removeprefix(PREFIX).lower().partition("_")
        if part == "engine" and isinstance(engine, dict):
            engine[name] = value
        elif variable in _variables():
            written[variable.removeprefix(PREFIX).lower()] = value
        else:
            raise SettingsError(f"{variable} in the environment is not a setting{_near(variable, _variables())}")
    if engine:
        written["engine"] = engine
    try:
        return Settings.model_validate(written)
    except ValidationError as error:
        raise SettingsError(_explain(error, file, given)) from None


def secret(variable: str, environment: Mapping[str, str] = os.environ) -> str:
    """The value of the environment variable that a policy names for a key. Raises SettingsError."""
    if not environment.get(variable):
        raise SettingsError(f"the environment has no {variable}, which the policy names as the key of an endpoint")
    return environment[variable]


def calm(environment: MutableMapping[str, str], *, offline: bool) -> None:
    """Tell the libraries that are imported later to be quiet and, where nothing is to be fetched, to stay offline."""
    for name, value in {**QUIET, **(OFFLINE if offline else {})}.items():
        environment.setdefault(name, value)


def _read(file: Path) -> dict[str, Any]:  # Any: what TOML can hold, validated next
    try:
        written = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{file}: {error}") from None
    folder = file.resolve().parent
    for key in ("cache", "data", "trace", "bench_python"):
        if isinstance(written.get(key), str):
            written[key] = folder / Path(written[key]).expanduser()
    policy = written.get("policy")
    if isinstance(policy, str) and ("/" in policy or policy.endswith((".yaml", ".yml"))):
        written["policy"] = str(folder / Path(policy).expanduser())
    return written


def _variables() -> list[str]:
    plain = [name for name in Settings.model_fields if name != "engine"]
    return [f"{PREFIX}{name.upper()}" for name in (*plain, *(f"engine_{key}" for key in EngineConfig.model_fields))]


def _explain(error: ValidationError, file: Path | None, given: Mapping[str, str]) -> str:
    """The first mistake, and where it stands."""
    first = error.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"]]
    variable = f"{PREFIX}{'_'.join(keys).upper()}"
    place = f"{variable} in the environment" if variable in given else f"{file or FILE}: {'.'.join(keys)!r}"
    if first["type"] == "extra_forbidden":
        known = EngineConfig.model_fields if keys[0] == "engine" else Settings.model_fields
        return f"{place} is not a setting{_near(keys[-1], known)}"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _near(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are: {', '.join(known)}"
