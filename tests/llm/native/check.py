"""Run the tests of the native code under other builds of it: with sanitizers, and with AVX-512 in emulation.

    python tests/llm/native/check.py sanitized emulated

A build goes to a folder of its own, with a copy of the package around it, and nothing that is installed is touched. The
sanitizers are GCC's or Clang's for addresses and undefined behaviour; the emulation is for processors without AVX-512.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
KERNELS = Path("llm", "kernels", "cpu")
BUILDS = {
    "sanitized": ["-DCMAKE_BUILD_TYPE=None", "-DTRACKBED_SANITIZED=ON"],
    "emulated": ["-DCMAKE_BUILD_TYPE=Release", f"-DTRACKBED_EMULATED={Path(__file__).parent / 'emulated'}"],
}
TESTS = ["tests/llm/test_kernels.py", "tests/llm/test_llama.py", "tests/llm/test_threads.py"]
# The package of this folder, whatever is installed: an editable install finds itself first.
RUN = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in type(finder).__name__]
sys.path.insert(0, sys.argv[1])
import pytest
from trackbed.llm.kernels.cpu import _cpu
assert _cpu.__file__.startswith(sys.argv[1]), _cpu.__file__
print("instruction sets:", ", ".join(_cpu.available()))
sys.exit(pytest.main(["-q", "-m", "not models", "-k", "not quietly", *sys.argv[2:]]))
"""


def check(name: str, folder: Path) -> None:
    """Build, and run the tests; ends the program where one fails."""
    nanobind = ask("-m", "nanobind", "--cmake_dir")
    options = [*BUILDS[name], f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind}"]
    build = folder / "build"
    subprocess.run(["cmake", "-S", ROOT / KERNELS, "-B", build, *options], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", build, "--parallel"], check=True, stdout=subprocess.DEVNULL)
    package = folder / "trackbed"
    package.mkdir()
    for part in ("apps", "policies", "rails", "retrieval"):
        (package / part).symlink_to(ROOT / part)
    shutil.copytree(ROOT / "llm", package / "llm", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    for library in build.glob("_cpu*"):
        if library.suffix in (".so", ".pyd"):
            shutil.copy(library, package / "llm" / "kernels" / "cpu")
    command = [sys.executable, "-c", RUN, str(folder), *TESTS]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | preloaded(name))


def preloaded(name: str) -> dict[str, str]:
    """What the sanitizers need in a program that was built without them. Python keeps what it has until it ends."""
    if name != "sanitized":
        return {}
    libraries = ("libasan.so", "libubsan.so", "libstdc++.so")
    found = [
        subprocess.run(
            ["gcc", f"-print-file-name={library}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for library in libraries
    ]
    return {"LD_PRELOAD": " ".join(found), "ASAN_OPTIONS": "detect_leaks=0"}


def ask(*arguments: str) -> str:
    """What Python prints."""
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    for chosen in sys.argv[1:] or BUILDS:
        print(f"== {chosen}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            check(chosen, Path(folder))
