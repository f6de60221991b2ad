"""What comes of using files that nobody would make by accident, tried in a process of its own with bounded memory.

There a crash, or an attempt to take all memory, is an outcome like another.
"""

import json
import os
import resource
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from han_core.errors import HanError

FINE, TOLD = "fine", "told"
MEMORY = 12 << 30  # of addresses, of which torch takes many
MOST = 2 << 30  # of memory, a quarter of it for torch


def outcome(use: Callable[[], bool]) -> str:
    """``fine`` where ``use`` found what is right, ``told: ..`` where it refused the file, or what else came."""
    try:
        return FINE if use() else "wrong: something else was read"
    except HanError as error:
        return f"{TOLD}: {error}" if harmless(str(error)) else f"wrong: cannot be printed: {error!r}"
    except BaseException as error:
        return f"wrong: {type(error).__name__}: {error}"


def harmless(text: str) -> bool:
    """Whether a text can be printed on a terminal: no control characters, no halves of characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def report(uses: Iterable[tuple[str, Callable[[], bool]]]) -> None:
    """In the other process: print the outcome of each use, its name before it begins."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name, use in uses:
        print(json.dumps([name, None]), flush=True)
        print(json.dumps([name, outcome(use)]), flush=True)
    taken = _most_memory()
    print(json.dumps(["memory", FINE if taken < MOST else f"wrong: {taken >> 20} MiB were taken"]), flush=True)


def _most_memory() -> int:
    """Bytes that this process held at most. Not getrusage's: that counts the process that started this one, too."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def outcomes(module: str, *arguments: str | Path, timeout: float = 300) -> dict[str, str]:
    """{use: outcome} of what ``python -m module arguments`` reports; the use in which the process ended says so."""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", module, *map(str, arguments)],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    ended = f"wrong: the process ended with {done.returncode}: {done.stderr[-2000:]}"
    if done.returncode and all(found.values()):
        found["start"] = ended
    return {name: ended if text is None else text for name, text in found.items()}
