"""Compile each module that has a `.pxd` beside its `.py`; without a compiler, install the same files interpreted.

`RAWWS_PURE=1` asks for the interpreted twin; `RAWWS_REQUIRE_COMPILED=1` makes a failure to compile an error.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PURE = os.environ.get("RAWWS_PURE", "") not in {"", "0"} or platform.python_implementation() != "CPython"
REQUIRED = os.environ.get("RAWWS_REQUIRE_COMPILED", "") not in {"", "0"}

ROOT = Path(__file__).parent
# A `.pxd` without a `.py` declares what C already has.
SOURCES = sorted(
    types.with_suffix(".py").relative_to(ROOT)
    for package in ("rawws", "rawws_sse")
    for types in ROOT.glob(f"{package}/**/*.pxd")
    if types.with_suffix(".py").exists()
)

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
            self.translate()
            super().run()
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

        translated = cythonize(self.extensions, compiler_directives=DIRECTIVES, build_dir="build", quiet=True)
        c_files = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = c_files[extension.name]


setup(
    ext_modules=[]
    if PURE
    else [
        Extension(".".join(source.with_suffix("").parts), [str(source)], extra_compile_args=FLAGS) for source in SOURCES
    ],
    cmdclass={"build_ext": BuildOrFallBack},
)
