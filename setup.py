"""Builds the extension accelops._native by CMake; everything else about the package is in pyproject.toml.

CMake's folder stays in the checkout, one per Python and sanitizer, so that a second `pip install` compiles only what
has changed. What a build in isolation brings is elsewhere each time: cmake is told so anew, and the bindings, which
include pybind11, are always compiled.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        sanitize = os.environ.get("ACCELOPS_SANITIZE", "")
        kind = "-".join(["cmake", sysconfig.get_platform(), sys.implementation.cache_tag, *sanitize.split(",")])
        build = ROOT / "build" / kind.rstrip("-")
        configure = [
            "cmake",
            "-S", str(ROOT),
            "-B", str(build),
            "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DACCELOPS_SANITIZE={sanitize}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)


setup(ext_modules=[Extension("accelops._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
