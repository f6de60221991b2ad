"""``han cache adopt STAGE``: keep a stage's files when its code was changed and makes the same.

Of nets: ``pipeline/adopt_net.py``.

A change to the code of a stage gives its files new fingerprints, so that no old file passes for a new one. Where the
change is a refactoring, this shows it on a sample: some clips, drawn at random, are made with today's code, and
compared with what the code before made of them, dataset by dataset and attribute by attribute. If all are equal, the
other files get today's fingerprints, too (hard links). If one differs, the first difference is named and nothing is
adopted.

Killed in the middle it goes on when it is started again: a file has its new name or has not.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.cache.fingerprint import without_code
from han_core.cache.folders import probe
from han_core.cache.store import ClipCache
from han_core.cache.verify import claimed_checksum, verify_clip_file
from han_core.clipfile.difference import first_difference
from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.errors import HanError
from han_core.runs.progress import Progress
from pipeline import finetune, finetune_slow_fusion, scores_slow_fusion
from pipeline.adopt_net import adopt_net
from pipeline.cubes import cubes_work
from pipeline.decode import decode_work
from pipeline.execution.code import stage_code
from pipeline.execution.jobs import IN_FLIGHT, ClipTask, died, why_died, windowed
from pipeline.execution.launch import relaunched
from pipeline.execution.local import with_processes
from pipeline.execution.stagelog import stage_log
from pipeline.execution.told import told_plainly
from pipeline.execution.work import ClipWork
from pipeline.execution.workers import crew
from pipeline.fisher import fisher_work
from pipeline.flow import flow_work
from pipeline.net_training import NetJob
from pipeline.params import Params, Run, load_params, params_option
from pipeline.paths import Paths, clip_file
from pipeline.scores import scores_work
from pipeline.stacked import stacked_work
from pipeline.steady import steady_work
from pipeline.tdd import tdd_work
from pipeline.tdd_cubes import tdd_cubes_work
from pipeline.tdd_samples import samples_work
from pipeline.trajectories import trajectories_work

if TYPE_CHECKING:
    import torch

log = logging.getLogger("pipeline.adopt")


@click.command()
@click.argument("stages", nargs=-1, required=True, metavar="STAGE...")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Clips that are made again; of nets, iterations.",
)
@click.option("--seed", type=int, help="Draws the sample; another one each time by default.")
@click.option("--from", "origin", metavar="CODE", help="Of several older codes, the one whose files are kept.")
@params_option
def main(stages: tuple[str, ...], sample: int, seed: int | None, origin: str | None, params_path: Path) -> None:
    """Show on a sample that a stage's new code makes the same files, and keep those of the code before.

    STAGE is decode, flow, steady, trajectories, cubes-spatial, cubes-temporal, and likewise scores-, tdd-samples- and
    tdd-; fisher, stacked, tdd-cubes or scores-slow-fusion; or one that trains a net: finetune-spatial,
    finetune-temporal or finetune-slow-fusion. cubes stands for both streams, cubes-spatial@2 for one split. The files
    are those that the params ask for.
    """
    params = load_params(params_path)
    cache = ClipCache.from_environment()
    cache = ClipCache(cache.root.absolute())
    with told_plainly("adopt"):
        probe(cache.root)
        for name in stages:
            if name.startswith("finetune"):
                options = ["--sample", str(sample), *(["--from", origin] if origin else [])]
                if not relaunched(params.run, "pipeline.adopt", [name, *options, "--params", str(params_path)]):
                    _adopt_nets(params, name, cache, sample, origin)
                continue
            for opened in _works(params, [name]):
                with opened as work, stage_log(Paths.of(params).log(f"adopt-{work.name}")):
                    adopt(work, cache, params.run, sample=sample, seed=seed, origin=origin)


def adopt(
    work: ClipWork, cache: ClipCache, run: Run, *, sample: int, seed: int | None = None, origin: str | None = None
) -> int:
    """Keep the files of the code before for one stage.

    Args:
        run: how many workers make the sample.
        sample: how many clips.
        seed: that draws them.
        origin: the code before; by default that of the files in the output folder, or else the one of which the cache
            has most.

    Returns:
        How many files got today's fingerprint.

    Raises:
        click.ClickException: a file differs, or a sampled clip cannot be made.
    """
    code = stage_code(work.stage)
    known = {**work.failed, **work.faults}
    wanted = [task for task in work.tasks if task.clip.key not in known]
    missing = [task for task in wanted if cache.find(work.kind, task.fingerprint) is None]
    if not missing:
        click.echo(f"{work.name}: all {len(wanted)} files are of today's code ({code}); nothing to adopt")
        return 0
    codes = Counter(one for task in missing for one in cache.codes(work.kind, task.fingerprint))
    origin = origin or _code_before(work, cache, missing, codes)
    found = ((task, cache.find(work.kind, f"{without_code(task.fingerprint)}-{origin}")) for task in missing)
    candidates = [(task, path) for task, path in found if path is not None]
    if not candidates:
        click.echo(f"{work.name}: {len(missing)} clips have no file of today's code ({code}), nor of another")
        return 0
    if len(codes) > 1:
        counts = ", ".join(f"{one} ({count} files)" for one, count in codes.most_common())
        click.echo(f"{work.name}: the cache has files of several codes, {counts}; {origin} is taken (--from)")
    said = f"{work.name}: code {origin} -> {code}"
    drawn = random.Random(seed).sample(candidates, min(sample, len(candidates)))
    _compare(work, run, cache, drawn, said)
    adopted = 0
    with Progress(f"adopt {work.name}", len(candidates)) as progress:
        for task, path in candidates:
            try:
                verify_clip_file(path)
            except ClipFileError as error:  # stays behind, and is made again
                log.warning("not adopted: %s", error)
            else:
                cache.adopt(work.kind, f"{without_code(task.fingerprint)}-{origin}", code)
                adopted += 1
            progress.advance()
    line = f"{said}: {len(drawn)} clips made again, all equal; {adopted} of {len(missing)} files adopted"
    log.info("%s", line)
    click.echo(line)
    return adopted


def _code_before(work: ClipWork, cache: ClipCache, tasks: Sequence[ClipTask], codes: Counter[str]) -> str:
    """The code that made what is in the output folder now; else the one with most files; "" where there is none."""
    used: Counter[str] = Counter()
    for task in tasks if len(codes) > 1 else ():
        with suppress(ClipFileError):
            content = read_trailer(clip_file(work.output, task.clip.class_name, task.clip.name)).sha256
            for code in cache.codes(work.kind, task.fingerprint):
                path = cache.find(work.kind, f"{without_code(task.fingerprint)}-{code}")
                used[code] += path is not None and claimed_checksum(path) == content
    return max(codes, key=lambda code: (used[code], codes[code]), default="")


@dataclass(frozen=True)
class _Comparison:
    """What a worker does with a task and the file that the code before made for it."""

    function: Callable[[ClipTask, Path], None]
    cache_root: Path
    stage: str
    code: str

    def __call__(self, job: tuple[ClipTask, Path]) -> str:
        """The first difference; "" if there is none."""
        task, before = job
        if stage_code(self.stage) != self.code:
            return "the code was changed just now"
        path = ClipCache(self.cache_root).temporary("adopt", ".h5")
        try:
            self.function(task, path)
            return first_difference(before, path).replace(str(path), "the new file")
        except HanError as error:
            return str(error).replace(str(path), "the new file")
        finally:
            path.unlink(missing_ok=True)


def _compare(work: ClipWork, run: Run, cache: ClipCache, sample: Sequence[tuple[ClipTask, Path]], said: str) -> None:
    """Make the sampled clips with today's code.

    Raises:
        click.ClickException: one comes out differently.
    """
    call = _Comparison(work.function, cache.root, work.stage, stage_code(work.stage))
    if work.executor is not None:
        finished = windowed(work.executor, call, iter(sample), IN_FLIGHT)
    else:
        hands = crew(run, work.gpus, net=work.net)
        finished = with_processes(call, sample, min(hands.processes, len(sample)), hands.gpus, hands.threads)
    with closing(finished), Progress(f"compare {work.name}", len(sample)) as progress:
        for (task, _), future in finished:
            if died(future):
                difference = why_died(future)
            elif isinstance(error := future.exception(), OSError):
                raise error
            else:
                difference = f"{type(error).__name__}: {error}" if error else future.result()
            if difference:
                log.info("%s: %s: %s", said, task.clip.key, difference)
                raise click.ClickException(
                    f"{said}: {task.clip.key} is not the same: {difference}. Nothing is adopted; "
                    "the stage makes its files again"
                )
            progress.advance()


def _adopt_nets(params: Params, name: str, cache: ClipCache, iterations: int, origin: str | None) -> None:
    """Keep the nets of the stage named.

    Raises:
        click.ClickException: there is no such stage or split, or today's code makes another net.
    """
    from han_core.devices import choose_device
    from han_core.runs.processes import processes

    stage, at, split = name.partition("@")
    if stage not in _NETS or (at and split not in map(str, params.splits)):
        raise click.ClickException(f"{name}: is no stage that makes a net; those are {_named(_NETS)}")
    with processes(choose_device(params.run.device)) as group:
        for job_of in _NETS[stage]:
            for number in [int(split)] if at else params.splits:
                job = job_of(params, number, group.device)
                adopt_net(job, params, cache, group, iterations=iterations, origin=origin)


def _named(stages: Iterable[str]) -> str:
    return ", ".join(f"{stage}@N" for stage in stages)


def _works(params: Params, names: Sequence[str]) -> Iterator[AbstractContextManager[ClipWork]]:
    """The works of the stages named, to be opened one after the other.

    Raises:
        click.ClickException: there is no such stage or split.
    """
    for name in names:
        stage, at, split = name.partition("@")
        if stage in _WHOLE and not at:
            yield nullcontext(_WHOLE[stage](params))
            continue
        kind, stream = (stage, "") if stage in _OF_STREAMS else (stage.rpartition("-")[0], stage.rpartition("-")[2])
        of_streams = kind in _OF_STREAMS and stream in ("", *STREAMS)
        if not (of_streams or stage in _OF_SPLITS) or (at and split not in map(str, params.splits)):
            streams = (f"{kind}-{stream}" for kind in _OF_STREAMS for stream in STREAMS)
            known = f"{', '.join(_WHOLE)}, {_named([*streams, *_OF_SPLITS])}; nets: {_named(_NETS)}"
            raise click.ClickException(f"{name}: is no stage that makes a file for each clip; those are {known}")
        numbers = [int(split)] if at else params.splits
        if stage in _OF_SPLITS:
            works = (_OF_SPLITS[stage](params, number) for number in numbers)
        else:
            streams = [stream] if stream else STREAMS
            views = ("", *params.cubes.views) if kind == "cubes" else ("",)
            opens = [partial(_OF_STREAMS[kind], **({"view": view} if view else {})) for view in views]
            works = (opened(params, one, number) for one in streams for number in numbers for opened in opens)
        yield from (nullcontext(work) if isinstance(work, ClipWork) else work for work in works)


STREAMS = ("spatial", "temporal")
_WHOLE = {"decode": decode_work, "flow": flow_work, "steady": steady_work, "trajectories": trajectories_work}
_OF_STREAMS = {"cubes": cubes_work, "scores": scores_work, "tdd-samples": samples_work, "tdd": tdd_work}
_OF_SPLITS = {
    "fisher": fisher_work,
    "stacked": stacked_work,
    "tdd-cubes": tdd_cubes_work,
    "scores-slow-fusion": scores_slow_fusion.scores_work,
}
"""Works that need no net open come as they are, others as context managers."""
_NETS: dict[str, list[Callable[[Params, int, "torch.device"], NetJob]]] = {
    f"finetune-{stream}": [lambda params, split, device, stream=stream: finetune.net_job(params, stream, split, device)]
    for stream in STREAMS
}
_NETS |= {"finetune": [*_NETS["finetune-spatial"], *_NETS["finetune-temporal"]]}
_NETS |= {"finetune-slow-fusion": [finetune_slow_fusion.net_job]}


if __name__ == "__main__":
    main()
