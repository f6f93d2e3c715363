"""Environments: a Python with other versions of packages, made when it is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Where environments are made; not under version control.
FOLDER: Final = Path(__file__).parents[2] / ".peers"
#: Seconds that an installation may take.
PATIENCE: Final = 300


class EnvironmentMissingError(Exception):
    """An environment cannot be had here; the message says why."""


def environment(
    name: str, requirements: Path, commands: Sequence[str], folder: Path = FOLDER
) -> Path:
    """The Python of an environment, which is made unless it is there.

    Parameters
    ----------
    name : str
        Its name.
    requirements : Path
        What is installed in it, in the words of pip.
    commands : sequence of str
        Pythons it can be made with, the preferred one first.
    folder : Path
        Where it is.

    Raises
    ------
    EnvironmentMissingError
        If there is no such Python, or a package cannot be installed.
    """
    place = folder / name
    python = place / "bin" / "python"
    ready = place / ".ready"  # written last, and with what is installed
    wanted = requirements.read_text(encoding="utf-8")
    if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
        return python
    base = find_python(commands)
    _call([base, "-m", "venv", "--clear", str(place)])
    # Wheels only: what would have to be compiled first cannot be had on any machine.
    install = ["-m", "pip", "install", "--only-binary=:all:", "-r", str(requirements)]
    _call([str(python), *install])
    ready.write_text(wanted, encoding="utf-8")
    return python


def find_python(commands: Sequence[str]) -> str:
    """The first of some commands that is a Python which starts.

    Raises
    ------
    EnvironmentMissingError
        If there is none.
    """
    for command in commands:
        found = shutil.which(command)
        # A command may be there and only say that no such version is chosen.
        if found and _starts(found):
            return found
    raise EnvironmentMissingError(
        f"there is no {' or '.join(commands)}; name a Python of such a version, "
        "PEER_PYTHON=/path/to/python."
    )


def _starts(command: str) -> bool:
    done = subprocess.run([command, "-c", ""], capture_output=True, check=False)
    return done.returncode == 0


def _call(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentMissingError(
            f"{' '.join(command)} took more than {PATIENCE} s."
        ) from None
    if done.returncode:
        raise EnvironmentMissingError(what_failed(done.stdout + done.stderr))


def what_failed(output: str) -> str:
    """What pip said last of a package that it could not install.

    Examples
    --------
    >>> what_failed("Looking in indexes\\nERROR: No matching distribution for a==9\\n")
    'No matching distribution for a==9'
    """
    errors = re.findall(r"^ *(?:ERROR|error): (.+)$", output, re.MULTILINE)
    lines = errors or output.strip().splitlines() or ["it said nothing"]
    return str(lines[-1])


def environment_variables() -> dict[str, str]:
    """Variables for a Python that should see its own packages only, and be quiet."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {**own, "PYTHONWARNINGS": "ignore"}
