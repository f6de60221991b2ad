"""Files of a stage as DVC leaves them: hard links into its cache, which nobody may write into."""

import os
from pathlib import Path


def hold(outputs: Path, cache: Path) -> dict[Path, bytes]:
    """Give every file below ``outputs`` a second name in ``cache``; second names and contents."""
    held = {}
    cache.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in outputs.rglob("*") if path.is_file()):
        link = cache / str(len(os.listdir(cache)))
        os.link(path, link)
        held[link] = path.read_bytes()
    assert held, f"{outputs} holds no files"
    return held


def damaged(held: dict[Path, bytes]) -> list[Path]:
    """Second names whose content is no longer what it was."""
    return [link for link, content in held.items() if link.read_bytes() != content]
