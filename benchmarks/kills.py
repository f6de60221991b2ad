"""Kill `dvc repro` again and again, and compare what it leaves with an undisturbed run. Writes benchmarks/kills.json.

\b
    python -m benchmarks.kills --kills 44 --seed 1          about 15 minutes on two cores

Two workspaces fill one cache. In the first, the process group of `dvc repro` gets SIGKILL at random moments of random
stages. Between the kills, at random:

\b
    comment    a comment is added to a module: no digest of a stage's code may change, and nothing is computed again
    rename     a local variable is renamed: other code, which makes the same bytes; sometimes `han cache adopt` follows
    prune      `han cache prune --yes --older-than 0` while a stage runs; a stage may end for it, with a plain error
    writer     the second workspace runs `dvc repro` on the same cache at the same time; killed now and then, too

DVC itself writes dvc.lock in place: a kill in that moment leaves it cut off, and `dvc repro` then refuses to start.
This is counted, and the lock is removed, as a person would have to: stages run again, and reuse what is finished.

In the end the code is as it was, and both workspaces run to their end at once. Every output, and dvc.lock, must have
the bytes of the undisturbed run, and nothing may be left over: temporaries, checkpoints, processes.
"""

import json
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
import yaml

from benchmarks.machine import machine
from benchmarks.workspace import (
    OUTPUTS,
    Workspace,
    copied,
    counts_of,
    different,
    kill_group,
    orphans,
    scratch_folder,
    small_params,
    stages_of,
    temporaries,
    tiny_videos,
)

RENAMED = {
    "han_core/images/codec.py": "done",
    "han_core/flow/levels.py": "pixels",
    "han_core/cubes/cubefile.py": "facts",
    "han_core/han/training.py": "kept",
}
"""Module -> a local variable of it. What depends on the module is made again, with the same bytes."""
COMMENTED = ("clipfile/trailer.py", "images/frames.py", "flow/flowfile.py", "nets/crops.py", "cubes/store.py")
COMMENTED += ("finetune/loop.py", "han/model.py", "video/decode.py", "tensorfile/file.py")
STAGES = ("decode", "flow", "cubes-spatial", "cubes-temporal", "scores-spatial", "scores-temporal", "train")
STAGES += ("finetune-spatial", "finetune-temporal")
"""Whose files or states are known by their code."""
CHANCES = {"comment": 0.2, "rename": 0.2, "prune": 0.3, "writer": 0.3}
"""Of each disturbance, for each kill."""


@dataclass
class Code:
    """The modules of a workspace that are edited, and how they were."""

    workspace: Workspace
    originals: dict[str, str] = field(default_factory=dict)
    edits: int = 0

    def comment(self, module: str) -> bool:
        """Add a comment to a module; whether no digest changed."""
        self.edits += 1
        return self._write(module, self._text(module) + f"\n# Edit {self.edits}.\n")

    def rename(self, module: str) -> bool:
        """Give a local variable of a module another name, or its own again; whether a digest changed."""
        self.edits += 1
        word, text = RENAMED[module], self._text(module)
        name = re.compile(rf"\b{word}(?:_(\d))?\b")
        now = int(name.search(text)[1] or 0)
        number = (now + 1 + self.edits % 2) % 3
        return not self._write(module, name.sub(f"{word}_{number}" if number else word, text))

    def restore(self) -> None:
        """All modules as they were."""
        for module, text in self.originals.items():
            (self.workspace.path / module).write_text(text, encoding="utf-8")
        self.originals.clear()

    def _text(self, module: str) -> str:
        text = (self.workspace.path / module).read_text(encoding="utf-8")
        self.originals.setdefault(module, text)
        return text

    def _write(self, module: str, text: str) -> bool:
        stages = self.workspace.stages_with(module, STAGES)
        before = self.workspace.digests(stages)
        (self.workspace.path / module).write_text(text, encoding="utf-8")
        return self.workspace.digests(stages) == before


@dataclass
class Findings:
    """What a campaign found; all lists but ``told`` should be empty."""

    kills: Counter = field(default_factory=Counter)
    """By stage."""
    events: Counter = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    """Plain errors of stages whose files were pruned under their hands."""
    different: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    """Edits that did to the digests what they should not."""
    computed_again: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    temporaries: list[str] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    locks_cut_off: int = 0
    """Times that DVC was killed while it wrote dvc.lock."""
    left_by_other_code: int = 0
    """Checkpoints of runs that were killed and never went on, because their code was edited; a prune removes them after
    a week."""
    left_for_prune: int = 0
    """Temporaries that the last runs had no reason to sweep away."""

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        lists = (self.different, self.digests, self.computed_again, self.failed, self.tracebacks, self.orphans)
        return not any((*lists, self.temporaries, self.checkpoints, self.damaged))


class Campaign:
    """Kills in one workspace, beside which a second one writes into the same cache.

    Args:
        folder: scratch.
        seed: of what happens; when it happens depends on the machine, too.
        videos: of each of two classes.
        chances: of each disturbance.
        second: whether there is a second workspace.
        delay: seconds after the beginning of a stage before which it is killed.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        videos: int = 4,
        chances: dict[str, float] = CHANCES,
        second: bool = True,
        delay: float = 7.0,
    ) -> None:
        self.rng = random.Random(seed)
        self.folder = folder.resolve()
        self.chances, self.delay = chances, delay
        params = small_params("videos")
        self.reference = copied(self.folder / "reference", self.folder / "reference_cache", params)
        self.main = copied(self.folder / "main", self.folder / "cache", params)
        self.writer = copied(self.folder / "writer", self.folder / "cache", params) if second else None
        self.filling = [workspace for workspace in (self.main, self.writer) if workspace is not None]
        for workspace in (self.reference, *self.filling):
            tiny_videos(workspace.path / "videos", 2, videos)
        self.code = Code(self.main)
        self.found = Findings()
        self.goal: dict[str, str] = {}
        self.beside: subprocess.Popen | None = None
        self.whole = False  # whether it runs all that the reference ran
        self.done: set[tuple[str, str]] = set()
        self.runs = self.writers = 0

    def prepare(self, *targets: str) -> None:
        """The undisturbed run."""
        self.reference.run("dvc", "repro", *targets)
        self.goal = self.reference.hashes(*OUTPUTS)

    def kill(self, *targets: str) -> bool:
        """One run of the targets, disturbed, and killed unless it ends before; whether it was."""
        adopts = self._edit()
        if adopts:
            self._adopt()
        log = self.folder / f"run{self.runs}.txt"
        self.runs += 1
        digests = self.main.digests(STAGES)
        process = self.main.start(("dvc", "repro", *targets), log)
        if self.writer is not None and self.beside is None and self._happens("writer"):
            some = self.rng.choice([(), (), ("decode",), ("flow",), ("cubes-spatial@1",)])
            self.whole = bool(targets) or not some
            self.beside = self.writer.start(("dvc", "repro", *(targets or some)), self._writer_log(new=True))
        prune = self.rng.uniform(0, 6) if self._happens("prune") else None
        killed, pruned = self._killed(process, log, self.rng.choice([1, 1, 1, 2, 2, 3]), prune)
        said = log.read_text(encoding="utf-8", errors="replace")
        begun = stages_of(said)
        stage = begun[-1] if begun else "(start)"
        if killed:
            self.found.kills[stage] += 1
        elif process.returncode and pruned:
            self.found.told.append(_last_words(said))
        elif process.returncode:
            self.found.failed.append(_last_words(said))
        self.found.tracebacks += [_last_words(said)] if "Traceback" in said else []
        self.found.orphans += orphans(self.main)
        self._mend_lock(self.main)
        self._look_for_needless_work(said, digests, pruned)
        self._look_after_writer()
        if not killed and not process.returncode:
            self._compare(self.main, "" if targets else "a round")
            self._begin_again()
        click.echo(
            f"{sum(self.found.kills.values())} kills, {'killed in' if killed else 'ended with'} {stage}", err=True
        )
        return killed

    def finish(self, *targets: str) -> None:
        """The code as it was, and both workspaces to their end at once."""
        if self.writer is not None and self.beside is not None:
            kill_group(self.beside)
            self._mend_lock(self.writer)
        self.code.restore()
        logs = {one: self.folder / f"last_{one.path.name}.txt" for one in self.filling}
        processes = [one.start(("dvc", "repro", *targets), log) for one, log in logs.items()]
        for process in processes:
            process.wait()
        for (workspace, log), process in zip(logs.items(), processes, strict=True):
            said = log.read_text(encoding="utf-8", errors="replace")
            self.found.failed += [_last_words(said)] if process.returncode else []
            self.found.tracebacks += [_last_words(said)] if "Traceback" in said else []
            self._compare(workspace, "the end")
            self.found.orphans += orphans(workspace)
        self._look_for_leftovers()

    def _happens(self, event: str) -> bool:
        happens = self.rng.random() < self.chances.get(event, 0)
        self.found.events[event] += happens
        return happens

    def _edit(self) -> bool:
        """Edit the code or leave it; whether files are to be adopted."""
        if self._happens("comment"):
            module = f"han_core/{self.rng.choice(COMMENTED)}"
            if not self.code.comment(module):
                self.found.digests.append(f"a comment in {module} changed a digest")
        if not self._happens("rename"):
            return False
        module = self.rng.choice(sorted(RENAMED))
        if not self.code.rename(module):
            self.found.digests.append(f"a renamed variable in {module} changed no digest")
        return self.rng.random() < 0.4

    def _adopt(self) -> None:
        """Adopt what can be; not all inputs of the stages are always there."""
        if not (self.main.path / "data" / "tiny" / "clips.csv").exists():
            return
        done = self.main.tried("pipeline.adopt", "decode", "--sample", "2")
        self.found.events["adopt"] += 1
        self.found.tracebacks += [_last_words(done.stdout)] if "Traceback" in done.stdout else []
        self.found.failed += [_last_words(done.stdout)] if done.returncode else []

    def _killed(self, process: subprocess.Popen, log: Path, stages: int, prune: float | None) -> tuple[bool, bool]:
        """Kill a run some time after its stage number ``stages`` began, and prune on the way; whether each was done."""
        began = time.monotonic()
        end = None
        pruned = False
        while process.poll() is None:
            now = time.monotonic()
            if end is None and len(stages_of(log.read_text(encoding="utf-8", errors="replace"))) >= stages:
                end = now + self.rng.uniform(0, self.delay)
            if end is not None and now > end:
                kill_group(process)
                return True, pruned
            if prune is not None and now > began + prune and self.main.cache.is_dir():
                done = self.main.han("cache", "prune", "--yes", "--older-than", "0")
                self.found.failed += [_last_words(done.stdout)] if done.returncode else []
                self.done.clear()
                pruned, prune = True, None
            time.sleep(0.05)
        return False, pruned

    def _look_for_needless_work(self, said: str, digests: dict[str, str], pruned: bool) -> None:
        """What was finished before under the same code must not be computed again; what was pruned may be."""
        for name, (_, computed) in counts_of(said).items():
            finished = (name, digests[re.sub(r"-\d+$", "", name)])
            if computed and finished in self.done and not pruned:
                self.found.computed_again.append(f"{name}: {computed} clips")
            if not pruned:
                self.done.add(finished)

    def _look_after_writer(self) -> None:
        if self.writer is None or self.beside is None:
            return
        if self.beside.poll() is None:
            if self.rng.random() < 0.5:
                kill_group(self.beside)
                self._mend_lock(self.writer)
                self.found.events["writer killed"] += 1
                self.beside = None
            return
        said = self._writer_log().read_text(encoding="utf-8", errors="replace")
        self.found.tracebacks += [_last_words(said)] if "Traceback" in said else []
        if self.beside.returncode:
            (self.found.told if self.found.events["prune"] else self.found.failed).append(_last_words(said))
        elif self.whole:
            self._compare(self.writer, "a round")
            _forget(self.writer)
        self.beside = None

    def _writer_log(self, *, new: bool = False) -> Path:
        self.writers += new
        return self.folder / f"writer{self.writers}.txt"

    def _mend_lock(self, workspace: Workspace) -> None:
        """Remove a lock that DVC did not finish writing."""
        lock = workspace.path / "dvc.lock"
        if lock.exists() and not _is_whole(lock):
            lock.unlink()
            self.found.locks_cut_off += 1

    def _compare(self, workspace: Workspace, when: str) -> None:
        found, goal = workspace.hashes(*OUTPUTS), dict(self.goal)
        if self.code.originals and workspace == self.main:  # it names the code
            found.pop("dvc.lock"), goal.pop("dvc.lock")
        self.found.events["comparisons"] += 1
        self.found.different += [f"{when}, {workspace.path.name}: {name}" for name in different(found, goal)]

    def _begin_again(self) -> None:
        """Everything from the beginning; with an empty cache, or with one that has all."""
        self.found.events["rounds"] += 1
        _forget(self.main)
        if self.beside is None and self.rng.random() < 0.5:
            shutil.rmtree(self.main.cache)
            self.done.clear()

    def _look_for_leftovers(self) -> None:
        checkpoints = sorted(path.stem for path in (self.main.cache / "checkpoints").glob("*"))
        codes = set(self.main.digests(STAGES).values())
        self.found.checkpoints = [name for name in checkpoints if name.split("-")[-1] in codes]
        self.found.left_by_other_code = len(checkpoints) - len(self.found.checkpoints)
        self.found.left_for_prune = len(temporaries(*self.filling))
        for command in (("verify",), ("prune", "--yes", "--older-than", "0")):
            done = self.main.han("cache", *command)
            self.found.damaged += [_last_words(done.stdout)] if done.returncode else []
        self.found.temporaries = temporaries(*self.filling)


def _is_whole(lock: Path) -> bool:
    """Whether DVC can read it."""
    try:
        return isinstance(yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages"), dict)
    except (AttributeError, yaml.YAMLError):
        return False


def _forget(workspace: Workspace) -> None:
    """Remove all outputs, and DVC's cache of them."""
    for name in (*OUTPUTS, ".dvc/cache", ".dvc/tmp", "logs"):
        path = workspace.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            with suppress(FileNotFoundError):
                path.unlink()


def _last_words(said: str) -> str:
    return " / ".join(said.strip().splitlines()[-12:])[-1500:]


@click.command(help=__doc__)
@click.option("--kills", default=44, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--scratch", type=click.Path(file_okay=False, path_type=Path), help="Kept; a temporary folder by default."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/kills.json"))
def main(kills: int, seed: int, scratch: Path | None, out: Path) -> None:
    """Run the campaign and print a table."""
    began = time.monotonic()
    with scratch_folder(scratch) as folder:
        campaign = Campaign(folder, seed)
        campaign.prepare()
        undisturbed = time.monotonic() - began
        found = campaign.found
        while sum(found.kills.values()) < kills and len(found.failed) < 5:
            campaign.kill()
        campaign.finish()
    click.echo("| stage | kills |\n| --- | --- |")
    for stage, number in found.kills.most_common():
        click.echo(f"| {stage} | {number} |")
    report = {"machine": machine("cpu"), "seed": seed, "sound": found.sound, "files": len(campaign.goal), **vars(found)}
    report |= {"seconds": round(time.monotonic() - began), "undisturbed_seconds": round(undisturbed)}
    for name, value in vars(found).items():
        click.echo(f"{name.replace('_', ' ')}: {value}")
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{'sound' if found.sound else 'NOT SOUND'}, {report['seconds']} s; {out}")
    raise SystemExit(not found.sound)


if __name__ == "__main__":
    main()
