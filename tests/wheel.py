"""Builds the wheel and the sdist, and runs the command of the wheel from an environment that has no checkout on its path.

    python tests/wheel.py

The environment sees the packages of the one that runs this, so that nothing large is installed twice; peft_inspect itself comes
from the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Build, install, run; raises CalledProcessError or AssertionError where one of them fails."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run([sys.executable, "-m", "build", "--outdir", str(work), str(ROOT)], check=True, stdout=subprocess.DEVNULL)
        (wheel,) = work.glob("*.whl")
        (source,) = work.glob("*.tar.gz")
        names = zipfile.ZipFile(wheel).namelist()
        missing = [name for name in _ours() if name not in names]
        assert not missing, f"not in the wheel: {missing}"
        venv.create(work / "venv", with_pip=True)
        python = work / "venv" / "bin" / "python"
        environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
        _borrow(python)
        command = [work / "venv" / "bin" / "peft-inspect", "check", "arch:llama", "--target-modules", "q_proj,v_proj", "--reduce"]
        told = subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True, text=True).stdout
        assert "LoRA params without gradients: 0/" in told, told
        where = subprocess.run(
            [python, "-c", "import peft_inspect; print(peft_inspect.__file__)"], cwd=work, env=environment, check=True, capture_output=True
        )
        assert str(work) in where.stdout.decode(), where.stdout
        print(f"{wheel.name} and {source.name} build, and the wheel's command runs")


def _ours() -> list[str]:
    """Every file of the package that git has."""
    listed = subprocess.run(["git", "ls-files", "peft_inspect"], cwd=ROOT, check=True, capture_output=True, text=True)
    return listed.stdout.split()


def _borrow(python: Path) -> None:
    """The libraries of this environment, after those of the new one."""
    site = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], check=True, capture_output=True)
    borrowed = [sysconfig.get_paths()[name] for name in ("purelib", "platlib")]
    (Path(site.stdout.decode().strip()) / "borrowed.pth").write_text("\n".join(dict.fromkeys(borrowed)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
