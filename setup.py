"""Builds sut._core and sut/replay_engine with CMake; everything else is in pyproject.toml."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """One CMake build makes the extension module and the replay engine."""

    def build_extension(self, ext: Extension) -> None:
        # Before the build: a source that changes during it makes the core an old one.
        checkout = runpy.run_path(str(ROOT / "sut" / "machine" / "checkout.py"))
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        # An editable install has a new build_temp each time; with SUT_BUILD_DIR it is incremental.
        build = Path(os.environ.get("SUT_BUILD_DIR") or self.build_temp).resolve()
        configure = ["cmake", "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
        configure += [f"-DSUT_SOURCES_SHA256={checkout['core_sources'](ROOT)}"]
        configure += [f"-D{name}_EXECUTABLE={sys.executable}" for name in ("Python3", "Python")]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        jobs = str(len(os.sched_getaffinity(0)))
        targets = ["_core", "replay_engine"]
        subprocess.run(
            ["cmake", "--build", str(build), "--parallel", jobs, "--target", *targets], check=True
        )
        module.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(next((build / "csrc").glob("_core*.so")), module)
        engine = build / "csrc" / "replay_engine" / "replay_engine"
        shutil.copy2(engine, module.parent / "replay_engine")

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        engine = ROOT / "sut" / "replay_engine"
        new = engine.with_name("replay_engine.new")
        shutil.copy2(Path(self.build_lib) / "sut" / "replay_engine", new)
        new.replace(engine)  # the file of a running engine cannot be written


class WithConfigs(build_py):
    """An installed package contains the configs, which a checkout has beside the package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(
                ROOT / "configs", Path(self.build_lib) / "sut" / "configs", dirs_exist_ok=True
            )


setup(
    ext_modules=[Extension("sut._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": WithConfigs},
)
