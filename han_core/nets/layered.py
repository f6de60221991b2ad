"""What training asks of a net, whatever its architecture."""

from collections.abc import Mapping

from torch import nn


class LayeredNet(nn.Module):
    """A net that gives class scores (n, classes) for a batch, and whose layers have names.

    By these names single layers learn more slowly than others, or not at all.
    """

    learnt: Mapping[str, str]
    """Module that has weights -> name of its layer."""

    def freeze(self, last: str | None) -> None:
        """Stop training all layers up to and with ``last``; None trains all.

        Raises:
            ValueError: ``last`` is not a layer.
        """
        raise NotImplementedError
