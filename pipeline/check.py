"""Stage ``check``: refuse a params file that cannot be worked with, before any other stage runs.

DVC runs a stage only when what it depends on has changed, and removes a stage's outputs before that; so without this
stage a wrong value would be found when the first stage runs that needs to, and after its outputs are gone. What is
written, ``data/params.ok``, is the same for all sound params: an edit of the params runs the check again, and of the
other stages only those that the edit concerns.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import click

from han_core.clips import read_clips
from han_core.datasets.synthetic.generate import BOXES, CLASSES
from pipeline import environment
from pipeline.chosen import not_chosen
from pipeline.execution.outputs import clear
from pipeline.execution.told import told_plainly
from pipeline.left_behind import remove_left_behind
from pipeline.params import Params, ParamsError, load_params, params_option
from pipeline.paths import CHECKED, Paths
from pipeline.shown_clips import ShownClipsError, choose_clips


def own_videos(params: Params) -> Iterable[str]:
    """Videos of a person where stage ``generate`` is to write: DVC would remove them."""
    root = params.dataset.root
    if params.dataset.kind != "synthetic" or not root.is_dir():
        return
    files = (path for path in sorted(root.rglob("*")) if not path.is_dir())
    strangers = [path for path in files if not _is_generated(path.relative_to(root))]
    if strangers:
        yield (
            f"dataset.root: {root} holds {len(strangers)} files that are not of the generated dataset, e.g. "
            f"{strangers[0].relative_to(root).as_posix()!a}, and would be removed; move them, or set "
            "dataset.kind to folder"
        )


def _is_generated(path: Path) -> bool:
    """Also by other params than today's: a run with fewer groups removes the others of an earlier one."""
    return path == Path(BOXES) or (
        len(path.parts) == 2
        and path.parts[0] in CLASSES
        and path.name.startswith(f"{path.parts[0]}_g")
        and path.suffix == ".avi"
    )


def clips_to_show(params: Params) -> Iterable[str]:
    """Names in ``report.clips`` that no test clip has, once there is a table of clips."""
    path = Paths.of(params).clips
    if isinstance(params.report.clips, int) or not path.exists():
        return
    table = read_clips(path)
    if set(params.splits) <= set(table.splits):
        try:
            choose_clips(params, table)
        except ShownClipsError as error:
            yield str(error)


CHECKS: tuple[Callable[[Params], Iterable[str]], ...] = (
    own_videos,
    not_chosen,
    clips_to_show,
    environment.data_that_are_not_there,
    environment.files_that_are_not_there,
    environment.downloads_that_fail,
    environment.devices_that_are_not_here,
)
"""What is looked at beyond the params themselves: each yields problems that start with the key concerned. Cheap things
only that need no other stage."""


@click.command()
@params_option
def main(params_path: Path) -> None:
    """Check the params file, and what can be known before any work."""
    with told_plainly("check"):
        clear(CHECKED)
        params = load_params(params_path)
        problems = [problem for check in CHECKS for problem in check(params)]
        if problems:
            raise ParamsError.of(params_path, problems)
        remove_left_behind(params)
        CHECKED.parent.mkdir(exist_ok=True)
        CHECKED.write_text("The params file was checked.\n", encoding="utf-8")
    click.echo(f"check: {params_path} is sound")


if __name__ == "__main__":
    main()
