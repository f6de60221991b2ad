"""A classification net of torchvision as what cubes are made of: the paper's method takes any convolutional net.

Such a net is used with the weights that it comes with; only VGG-16 (:mod:`han_core.nets.vgg16`) is fine-tuned here. The
cube is the output of one of its modules, named as ``named_modules()`` has it, whose output is a map: (n, D, K, K).
"""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from han_core.nets.preprocess import SIZE
from han_core.nets.sealed_net import WeightsError

FULLY_CONNECTED = ("fc6", "fc7")
"""Names that stand for what such a net has in place of VGG-16's: the input of its last linear layer."""

_MOST_REGIONS = (1 << 16) - 1
"""Of a map: cubes count a row's non-zeros in 16 bits."""
_ENOUGH, _SHOWN = 4, 12
"""Modules that an error names: the outermost, but not fewer, nor more of them."""


def require_architecture(name: str) -> None:
    """Check that torchvision has a classification model of this name.

    Raises:
        WeightsError: it has none; the message names those that are spelt nearly so.
    """
    import torchvision  # here, because it takes seconds

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
        raise WeightsError(f"torchvision {torchvision.__version__} has no classification model {name[:80]!r}; {hint}")


class TorchvisionNet(nn.Module):
    """A classification model of torchvision.

    Its weights are torchvision's random ones, drawn from torch's global generator. Once made it is in evaluation mode:
    nothing is dropped, and batch normalisation uses the statistics that it learnt.

    Args:
        architecture: name of the model, e.g. ``resnet50``.
        size: side of its input in pixels.
        in_channels: 3 for RGB, 2L for stacks of L flow fields.

    Raises:
        WeightsError: there is no such model, or it has no linear layer.

    Example:
        >>> net = TorchvisionNet("resnet18", size=64)
        >>> net.require_map("layer4")
        (512, 2, 2)
        >>> found = net.extract(torch.zeros(1, 3, 64, 64), ["layer4", "fc7"])
        >>> {layer: tuple(values.shape) for layer, values in found.items()}
        {'layer4': (1, 512, 2, 2), 'fc7': (1, 512)}
    """

    def __init__(self, architecture: str, *, size: int = SIZE, in_channels: int = 3) -> None:
        from torchvision.models import get_model

        super().__init__()
        require_architecture(architecture)
        self.architecture = architecture
        self.size = size
        self.model = get_model(architecture, weights=None, **_options(architecture, size))
        linear = [name for name, module in self.model.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise WeightsError(f"{architecture} has no linear layer, whose input `fc` would be; take another net")
        self.first = next(name for name, module in self.model.named_modules() if isinstance(module, nn.Conv2d))
        """Name of the first convolution."""
        self.last = linear[-1]
        """Name of the last linear layer."""
        self.change(in_channels=in_channels)

    def change(self, *, in_channels: int, classes: int | None = None) -> None:
        """Put a random layer in place of the first convolution or the last linear layer where it has another size;
        torch's generators stay as they are."""
        conv, head = self.model.get_submodule(self.first), self.model.get_submodule(self.last)
        with torch.random.fork_rng(devices=[]):
            if in_channels != conv.in_channels:
                self.model.set_submodule(self.first, _other_channels(conv, in_channels))
            if classes not in (None, head.out_features):
                self.model.set_submodule(self.last, nn.Linear(head.in_features, classes, bias=head.bias is not None))
        self.eval()
        self.to(memory_format=torch.channels_last)

    @property
    def in_channels(self) -> int:
        return self.model.get_submodule(self.first).in_channels

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (n, classes) of images (n, in_channels, size, size)."""
        return self.model(images.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def extract(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations of several layers in one forward pass.

        Args:
            images: (n, in_channels, size, size) in the dtype of the weights.
            layers: names of modules, whose output is taken (the last one, where a module is called several times), and
                of ``FULLY_CONNECTED``, for the input of the last linear layer.

        Returns:
            As the modules give them, in the dtype of the weights; (n, units) for the input of the last linear layer.

        Raises:
            ValueError: a layer has no such name.
        """
        found: dict[str, Tensor] = {}

        def keep_output(layer: str) -> Any:
            # A copy, because the next module may work in place.
            return lambda module, inputs, output: found.__setitem__(layer, output.clone())

        def keep_input(layer: str) -> Any:
            return lambda module, inputs: found.__setitem__(layer, inputs[0].clone())

        modules = dict(self.model.named_modules())
        hooks = []
        try:
            for layer in layers:
                if layer in FULLY_CONNECTED:
                    hooks.append(modules[self.last].register_forward_pre_hook(keep_input(layer)))
                elif layer in modules:
                    hooks.append(modules[layer].register_forward_hook(keep_output(layer)))
                else:
                    raise ValueError(f"no layer {layer!r} in {self.architecture}")
            self(images)
        finally:
            for hook in hooks:
                hook.remove()
        return {layer: found[layer] for layer in layers}

    def require_map(self, layer: str) -> tuple[int, int, int]:
        """The shape (D, K, K) of a layer's map, found by a pass of empty images.

        A map is square here, as the input is: what is not has its channels last, or no places at all.

        Raises:
            WeightsError: there is no such layer, or its output is no map; the message names layers whose output is.
        """
        shapes = self._shapes()
        maps = {name: shape[1:] for name, shape in shapes.items() if _is_map(shape)}
        if layer in maps:
            return maps[layer]
        depth = next((d for d in range(9) if sum(name.count(".") <= d for name in maps) >= _ENOUGH), 9)
        outer = [name for name in maps if name.count(".") <= depth][-_SHOWN:]
        listed = ", ".join(f"{name} {' x '.join(map(str, maps[name]))}" for name in outer)
        have = f"Maps are the output of (channels x rows x columns) {listed}, and of modules inside these"
        if layer not in dict(self.model.named_modules()) or not layer:
            close = difflib.get_close_matches(layer, maps, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise WeightsError(f"`layer`: {self.architecture} has no module {layer!r}.{hint} {have}")
        what = " x ".join(map(str, shapes[layer])) if layer in shapes else "no tensor"
        raise WeightsError(
            f"`layer`: of two images {layer} of {self.architecture} gives {what}: no map, which would be 2 x channels "
            f"x K x K with 1 < K < 256. {have}"
        )

    @torch.inference_mode()
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Module -> shape of its output for two images; of modules that give something else than a tensor, nothing."""
        shapes: dict[str, tuple[int, ...]] = {}

        def note(name: str) -> Any:
            def hook(module: nn.Module, inputs: object, output: object) -> None:
                if isinstance(output, Tensor):
                    shapes[name] = tuple(output.shape)

            return hook

        hooks = [module.register_forward_hook(note(name)) for name, module in self.model.named_modules() if name]
        weight = next(self.parameters())
        images = torch.zeros(2, self.in_channels, self.size, self.size, dtype=weight.dtype, device=weight.device)
        try:
            self(images)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise WeightsError(
                f"{self.architecture} does not take images of {self.size} x {self.size} pixels (`size` in the metadata "
                f"of its file): {reason}"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
        return shapes


def drawn_net(architecture: str, *, seed: int, **sizes: Any) -> TorchvisionNet:
    """A net with torchvision's random weights, always the same for a seed; torch's generators are left as they were.

    Raises:
        WeightsError: as :class:`TorchvisionNet`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TorchvisionNet(architecture, **sizes)


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 2 and shape[2] == shape[3] and 1 < shape[2] ** 2 <= _MOST_REGIONS


def _options(architecture: str, size: int) -> dict[str, Any]:
    """What torchvision must be told to make a net for its cubes alone."""
    if architecture in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False}  # those branches are for training
    return {"image_size": size} if architecture.startswith("vit_") else {}


def _other_channels(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """A convolution as this one, for another number of channels, drawn by He's rule."""
    made = nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made
