"""Compile each module that has a `.pxd` beside its `.py`; without a compiler, install the same files interpreted.

`RAWWS_PURE=1` asks for the interpreted twin; `RAWWS_REQUIRE_COMPILED=1` makes a failure to compile an error.
"""

import hashlib
import json
import os
import platform
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PURE = os.environ.get("RAWWS_PURE", "") not in {"", "0"} or platform.python_implementation() != "CPython"
REQUIRED = os.environ.get("RAWWS_REQUIRE_COMPILED", "") not in {"", "0"}

ROOT = Path(__file__).parent
PACKAGES = ("rawws", "rawws_sse")
TYPES = sorted(types.relative_to(ROOT) for package in PACKAGES for types in ROOT.glob(f"{package}/**/*.pxd"))
# A `.pxd` without a `.py` declares what C already has.
SOURCES = [types.with_suffix(".py") for types in TYPES if (ROOT / types.with_suffix(".py")).exists()]

# Each Python here has its own compiled files, C files and record.
SUFFIX = EXTENSION_SUFFIXES[0]
C_FILES = Path("build", sys.implementation.cache_tag)
# What the compiled files beside the sources were compiled from: the digest of each source. tests/compiled.py reads it.
RECORD = ROOT / "build" / f"compiled{SUFFIX}.json"

# annotation_typing=False: annotations are for people and mypy; the C types stand in the `.pxd` files alone.
# nonecheck=True: what is None where an object is needed raises AttributeError, as in the interpreter, and is no crash.
DIRECTIVES = {"language_level": "3", "annotation_typing": False, "binding": True, "nonecheck": True}

# -O3 lets the compiler vectorise the masking loop: 16 KiB in 0.3 us instead of 4.
FLAGS = [] if os.name == "nt" else ["-O3", "-g0"]


class BuildOrFallBack(build_ext):
    """Build every extension or none: a failure leaves the work to the interpreted twin, and says so once."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        inplace = self.inplace
        try:
            sources = digests()
            if inplace:
                forget(sources)
            self.translate()
            super().run()
            if inplace:
                remove_orphans()
                RECORD.write_text(json.dumps(sources, indent=1), encoding="utf-8")
        except Exception as error:
            if REQUIRED:
                raise
            self.inplace = inplace
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []
            print(f"rawws: not compiled ({str(error)[:60]}...); interpreted, it does the same, slower", file=sys.stderr)

    def translate(self) -> None:
        """Have Cython write the C files that are missing or older than their sources."""
        from Cython.Build import cythonize  # noqa: PLC0415 - not needed, and not always there, for the interpreted twin

        # At once where processes are just forked: others would run this file again. And where a failure is no reason to
        # do without: not every system has what a pool of processes needs.
        processes = os.cpu_count() if REQUIRED and sys.platform == "linux" else None
        translated = cythonize(
            self.extensions, nthreads=processes or 0, compiler_directives=DIRECTIVES, build_dir=str(C_FILES)
        )
        c_files = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = c_files[extension.name]


def digests() -> dict[str, str]:
    """Return the digest of each file that is compiled."""
    return {file.as_posix(): hashlib.sha256((ROOT / file).read_bytes()).hexdigest() for file in [*SOURCES, *TYPES]}


def forget(sources: dict[str, str]) -> None:
    """Strike from the record what has changed, and remove the C files of that, whatever the times of the files say.

    What is struck stays so until a build succeeds.
    """
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    changed = [Path(file) for file, digest in sources.items() if known.get(file) != digest]
    # The types of a module are compiled into all that use it.
    for source in SOURCES if any(file.suffix == ".pxd" for file in changed) else changed:
        (ROOT / C_FILES / source.with_suffix(".c")).unlink(missing_ok=True)
    RECORD.parent.mkdir(exist_ok=True)
    kept = {file: digest for file, digest in sources.items() if Path(file) not in changed}
    RECORD.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def remove_orphans() -> None:
    """Remove compiled files whose source is gone or has moved: Python would still import them."""
    wanted = {ROOT / source.with_name(source.stem + SUFFIX) for source in SOURCES}
    for package in PACKAGES:
        for built in ROOT.glob(f"{package}/**/*{SUFFIX}"):
            if built not in wanted:
                built.unlink()


setup(
    ext_modules=[]
    if PURE
    else [
        Extension(".".join(source.with_suffix("").parts), [str(source)], extra_compile_args=FLAGS) for source in SOURCES
    ],
    cmdclass={"build_ext": BuildOrFallBack},
)
