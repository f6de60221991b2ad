"""The codebook that a process encodes clips with, opened once."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.execution.opened import Opened

if TYPE_CHECKING:
    from han_core.baselines.fisher.codebook import Codebook


def codebook_at(path: Path, identity: str) -> "Codebook":
    """The codebook of a file, from the second call on from memory.

    Args:
        identity: its content: workers of a cluster outlive a stage, and the file may hold another by then.

    Raises:
        CodebookError: the file is damaged, or holds another codebook.
    """
    return _OPEN.get((path, identity))


def _open(key: tuple[Path, str]) -> AbstractContextManager["Codebook"]:
    from han_core.baselines.fisher.codebook import codebook_identity, read_codebook
    from han_core.baselines.fisher.stored import CodebookError

    path, identity = key
    codebook, metadata = read_codebook(path)
    if codebook_identity(metadata) != identity:
        raise CodebookError(f"{path}: was replaced by another codebook meanwhile; run the stage again")
    return nullcontext(codebook)


_OPEN: "Opened[tuple[Path, str], Codebook]" = Opened(_open)
