"""Trained models, and what they say of a video."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from han_core.api.arguments import on_gpu, whole_number
from han_core.api.names import AnyPath, Device
from han_core.errors import HanError

if TYPE_CHECKING:  # torch takes seconds to import
    from han_core.predict.models import Recogniser
    from han_core.predict.windows import Prediction

_TOP = 5


@dataclass(frozen=True)
class Label:
    """What a model says of a video."""

    name: str
    """The likeliest class."""
    probability: float
    top: tuple[tuple[str, float], ...]
    """(class, probability), the likeliest first, at most five."""
    details: "Prediction"
    """Probabilities, attention maps, and of a long video its windows and timeline."""

    def __str__(self) -> str:
        return f"{self.name} ({100 * self.probability:.0f} %)"


class Model:
    """A trained HAN and the nets of its features, ready for videos; a context manager, or :meth:`close` it."""

    def __init__(self, recogniser: "Recogniser") -> None:
        self._recogniser = recogniser
        self._closed = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by their number."""
        return self._recogniser.trained.classes

    @property
    def path(self) -> Path:
        """The model's file."""
        return self._recogniser.path

    def predict(
        self, video: AnyPath, *, window: int | None = None, progress: Callable[[int], object] | None = None
    ) -> Label:
        """Label a video, exactly as the pipeline labels a clip; a long one is looked at in sliding windows.

        Args:
            window: usual length of a clip in frames, at least 2; None is that of the clips that the model learnt from.
            progress: called with the number of frames done, now and then.

        Raises:
            VideoError, ClipError: the video cannot be decoded, or has one frame where flow is needed.
            ArgumentError: the window is no such number; it is a ValueError, too.
            HanError: the model is closed.
        """
        if self._closed:
            raise HanError(f"{self.path}: the model is closed; load it again with load_model")
        if window is not None:
            window = whole_number("window", window, 2, "frames")
        from han_core.predict.windows import predict_video

        noted = {} if progress is None else {"on_frames": progress}
        with on_gpu(self._recogniser.device):
            found = predict_video(Path(video), self._recogniser, window=window, **noted)
        chances = found.probabilities
        order = (-chances).argsort(kind="stable")[:_TOP]
        top = tuple((self.classes[n], float(chances[n])) for n in order)
        return Label(*top[0], top, found)

    def close(self) -> None:
        """Let go of the nets; the model labels nothing more."""
        self._closed = True
        self._recogniser.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_model(
    path: AnyPath | None = None,
    *,
    nets: Mapping[str, AnyPath] | None = None,
    workspace: AnyPath = ".",
    device: Device = "auto",
) -> Model:
    """A trained HAN, with the nets that its features come from.

    Args:
        path: the model's file; None is the one trained last in the workspace.
        nets: stream -> file of its net; those that are not named are looked for in the workspace.
        workspace: a project's folder.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, or one of several GPUs, ``cuda:1``.

    Raises:
        PredictError: nothing is found, or a net is another than the one that the model learnt from.
        ModelFileError, WeightsError: a file is missing or damaged.
        DeviceError: there is no device of this name, or a GPU is asked for and torch sees none.

    Example:
        >>> import han_core as han
        >>> with han.load_model("han.safetensors", nets={"spatial": "spatial-1.safetensors"}) as model:
        ...     label = model.predict("clip.avi")
        >>> label.name in model.classes, len(label.top)
        (True, 2)
    """
    from han_core.devices import choose_device
    from han_core.predict.models import load_recogniser

    given = {stream: Path(net) for stream, net in (nets or {}).items()}
    model = Path(path) if path is not None else None
    return Model(load_recogniser(model, given, workspace=Path(workspace), device=choose_device(device)))
