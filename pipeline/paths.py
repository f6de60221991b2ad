"""Where the files of an experiment are: the one place that spells their paths.

All paths are relative to the project's folder, in which stages run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pipeline.params import Params

CHECKED = Path("data", "params.ok")
"""What stage ``check`` leaves. No dataset's folder, whose name has no dot, and the same for all, as wrong params may
spell no name at all."""


@dataclass(frozen=True)
class Paths:
    """Paths of one dataset's outputs."""

    dataset: str
    nets: str
    """Name of the dataset whose fine-tuned nets are used."""
    camera: str = "none"
    """What the camera's motion is taken for in the flow that the temporal net looks at; "none" where it stays."""

    @classmethod
    def of(cls, params: Params) -> Self:
        """The paths that a params file implies."""
        return cls(params.dataset.name, params.cubes.nets, params.camera)

    @property
    def data(self) -> Path:
        return Path("data", self.dataset)

    @property
    def clips(self) -> Path:
        """The table of clips, classes and splits."""
        return self.data / "clips.csv"

    @property
    def frames(self) -> Path:
        return self.data / "frames"

    @property
    def flow(self) -> Path:
        return self.data / "flow"

    @property
    def steady(self) -> Path:
        """Flow without the camera's motion."""
        return self.data / "steady"

    def source(self, stream: str) -> tuple[Path, Literal["frames", "flow"]]:
        """Folder and kind of the clip files that a stream's net looks at."""
        if stream == "spatial":
            return self.frames, "frames"
        return self.flow if self.camera == "none" else self.steady, "flow"

    def cubes(self, stream: str, split: int, view: str = "") -> Path:
        """Folder of one stream's cubes, made with the nets of one split; of a further view where one is named."""
        return self.views(stream, split) / view if view else self.data / "cubes" / f"{stream}-{split}"

    def views(self, stream: str, split: int) -> Path:
        """Folder of the further views' cubes."""
        return self.data / "views" / f"{stream}-{split}"

    def scores(self, stream: str, split: int) -> Path:
        """Folder of what the net of one stream and split says of each clip."""
        return self.data / "scores" / f"{stream}-{split}"

    @property
    def trajectories(self) -> Path:
        return self.data / "trajectories"

    def fisher(self, split: int) -> Path:
        """Folder of the Fisher vectors of each clip's trajectories, by the codebook of a split."""
        return self.data / "fisher" / str(split)

    def tdd_samples(self, stream: str, split: int) -> Path:
        """Folder of the descriptors of training clips that the codebook of a stream and split is fitted to."""
        return self.data / "tdd_samples" / f"{stream}-{split}"

    def tdd(self, stream: str, split: int) -> Path:
        """Folder of the Fisher vectors of maps pooled along each clip's trajectories."""
        return self.data / "tdd" / f"{stream}-{split}"

    def tdd_cubes(self, split: int) -> Path:
        """The same of cubes pooled along them, both streams together."""
        return self.data / "tdd_cubes" / str(split)

    def stacked(self, split: int) -> Path:
        """Folder of each clip's stacked Fisher vector, by the model of a split."""
        return self.data / "stacked" / str(split)

    def predictions(self, family: str, split: int, seed: int | None = None) -> Path:
        """Folder of the predictions of a row, or of a family of rows (``han_core/rows.py``), on one split, and where
        it has several models by one of them (``Params.seeds_of``)."""
        return self.data / "predictions" / run_name(family, split, seed)

    @property
    def models(self) -> Path:
        return Path("models", self.dataset)

    def net(self, stream: str, split: int) -> Path:
        """The VGG-16 that one stream's cubes are made with; another dataset's where the params say so."""
        return Path("models", self.nets, "nets", f"{stream}-{split}.safetensors")

    def codebook(self, name: str, split: int) -> Path:
        """Projections and mixtures learnt from the training clips of a split."""
        return self.models / "codebooks" / f"{name}-{split}.safetensors"

    def han(self, model: str, split: int, seed: int) -> Path:
        """One trained HAN, or one of its variants."""
        return self.models / "han" / f"{run_name(model, split, seed)}.safetensors"

    def cnn_lstm(self, split: int) -> Path:
        """The trained two-stream CNN + LSTM of a split."""
        return self.models / "cnn_lstm" / f"{split}.safetensors"

    def slow_fusion(self, split: int) -> Path:
        """The Slow Fusion net of a split."""
        return self.models / "nets" / f"slow_fusion-{split}.safetensors"

    @property
    def metrics(self) -> Path:
        return Path("metrics", self.dataset)

    def store_statistics(self, stream: str, split: int) -> Path:
        """What the cubes of one stream and split hold, in figures."""
        return self.metrics / "store" / f"{stream}-{split}.json"

    @property
    def plots(self) -> Path:
        return Path("plots", self.dataset)

    def training_curve(self, model: str, split: int, seed: int | None = None) -> Path:
        """Folder of the learning curve of one model on cubes."""
        return self.plots / "train" / run_name(model, split, seed)

    @property
    def report(self) -> Path:
        return Path("report", self.dataset)

    @property
    def logs(self) -> Path:
        """Wall times and throughput; never an output of a stage."""
        return Path("logs", self.dataset)

    def log(self, stage: str) -> Path:
        """The log of a stage's last run, e.g. of ``decode`` or ``cubes-spatial-1``."""
        return self.logs / f"{stage}.log"


def run_name(name: str, split: int, seed: int | None = None) -> str:
    """What files of one model, or row, and split are called: ``han-1-seed2``, and without a seed ``linear-1``."""
    return f"{name}-{split}" if seed is None else f"{name}-{split}-seed{seed}"


def choices_file(name: str) -> Path:
    """The file that ``train.chosen`` names: one for a dataset, which people commit. ``dvc.yaml`` spells it, too."""
    return Path("choices", f"{name}.yaml")


def inner_scores(dataset: str, model: str, split: int) -> Path:
    """How the settings of a variant of HAN were chosen for a split, beside the file of choices."""
    return Path("choices", dataset, f"{model}-{split}.yaml")


def clip_file(folder: Path, class_name: str, clip: str) -> Path:
    """The file of one clip below a stage's output folder."""
    return folder / class_name / f"{clip}.h5"


def net_file(params: Params, stream: str, split: int) -> Path:
    """The file of a stream's net.

    Raises:
        WeightsError: it is missing.
    """
    from han_core.nets.sealed_net import WeightsError

    path = Paths.of(params).net(stream, split)
    if not path.exists():
        raise WeightsError(f"{path}: is missing; make it with stage finetune of dataset {params.cubes.nets}")
    return path
