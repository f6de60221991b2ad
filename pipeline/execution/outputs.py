"""What a stage does with its outputs of an earlier run when it is started without DVC."""

import shutil
from pathlib import Path


def clear(*outputs: Path) -> None:
    """Remove files and folders, as DVC does before it runs a stage.

    They may be hard links into DVC's cache, which writing into them would damage.
    """
    for output in outputs:
        if output.is_dir() and not output.is_symlink():
            shutil.rmtree(output)
        else:
            output.unlink(missing_ok=True)
