"""The compiled extensions of sklseq; everything else is in pyproject.toml.

Every ``.pyx`` under ``sklseq/`` is one extension.  A kernel whose first line says
``# distutils: language = c++`` is compiled as C++17; its helper headers lie beside it.

Environment
-----------
SKLSEQ_DEBUG=1
    A build with bounds checks and assertions, on which the test suite must pass as well.
SKLSEQ_PORTABLE=1
    A build without run-time dispatch to wider vector instructions (what other machines get).
SKLSEQ_LINETRACE=1
    A build that coverage.py can trace line by line.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("SKLSEQ_DEBUG", "") == "1"
PORTABLE = os.environ.get("SKLSEQ_PORTABLE", "") == "1"
LINETRACE = os.environ.get("SKLSEQ_LINETRACE", "") == "1"

# NaN is data here, so never -ffast-math: only what leaves NaN and infinity alone.
GCC_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-g0"]
MSVC_FLAGS = ["/O2"]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": False,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
    "linetrace": LINETRACE,
}


class BuildExtension(build_ext):
    """build_ext that picks flags by compiler and says in words what a failed build lacks."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        msvc = self.compiler.compiler_type == "msvc"
        for extension in self.extensions:
            extension.extra_compile_args = list(MSVC_FLAGS if msvc else GCC_FLAGS)
            if extension.language == "c++":
                extension.extra_compile_args.append("/std:c++17" if msvc else "-std=c++17")
        try:
            super().build_extensions()
        except Exception:
            print(
                "\nsklseq: compiling a kernel failed (the compiler's own message is above). "
                "Building needs a C and C++17 compiler and the headers of this Python:\n"
                "  Debian, Ubuntu: apt-get install build-essential python3-dev\n"
                "  Fedora:         dnf install gcc gcc-c++ python3-devel\n"
                "  macOS:          xcode-select --install\n"
                "  Windows:        Visual Studio Build Tools, workload 'Desktop C++'\n",
                file=sys.stderr,
            )
            raise


# What Cython needs for typed memoryviews, once for all kernels instead of once in each.
SHARED_UTILITY = "sklseq._cython_utility"


def extensions():
    macros = []
    if DEBUG:
        macros.append(("SKLSEQ_DEBUG", "1"))
    if PORTABLE:
        macros.append(("SKLSEQ_PORTABLE", "1"))
    if LINETRACE:
        macros.append(("CYTHON_TRACE_NOGIL", "1"))
    shared_source = SHARED_UTILITY.replace(".", "/") + ".c"  # written by cythonize
    result = [Extension(SHARED_UTILITY, [shared_source], define_macros=macros)]
    for path in sorted(Path("sklseq").rglob("*.pyx")):
        name = ".".join(path.with_suffix("").parts)
        shared = Path("sklseq").glob("*.h")
        headers = sorted({str(header) for header in (*shared, *path.parent.glob("*.h"))})
        result.append(
            Extension(name, [str(path)], depends=headers, define_macros=macros,
                      include_dirs=[str(path.parent)])
        )
    return result


setup(
    ext_modules=cythonize(
        extensions(),
        compiler_directives=DIRECTIVES,
        shared_utility_qualified_name=SHARED_UTILITY,
    ),
    cmdclass={"build_ext": BuildExtension},
)
