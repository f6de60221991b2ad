"""What is wrong with a video that can still be decoded, in numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """Counts of one video."""

    frames: int = 0
    """That were decoded."""
    lost: int = 0
    """Packets that the decoder refused: each is a picture that is not there."""
    reported: int = 0
    """Further packets that have a hole of zeros or for which FFmpeg reported errors: their pictures are there and
    probably wrong."""
    corrupt: int = 0
    """Frames that the decoder itself marked as corrupt (may count the pictures of ``reported`` again)."""
    missing: int = 0
    """Pictures that are not in the file: that its index promises, or that its packets leave out
    (:mod:`han_core.video.missing`)."""

    def __bool__(self) -> bool:
        return bool(self.damaged)

    @property
    def pictures(self) -> int:
        """Pictures of the undamaged video, as far as can be told."""
        return self.frames + self.lost + self.missing

    @property
    def damaged(self) -> int:
        """Pictures that are lost, missing or probably wrong."""
        return min(self.pictures, max(self.lost + self.reported, self.corrupt) + self.missing)

    @property
    def share(self) -> float:
        """Share of the pictures that is damaged, 0 to 1."""
        return self.damaged / max(1, self.pictures)

    def __str__(self) -> str:
        """E.g. ``3 of 60 pictures are damaged (1 missing, 2 with decoding errors)``."""
        parts = (
            (self.missing, "missing"),
            (self.lost, "not decodable"),
            (self.reported, "with decoding errors"),
            (self.corrupt, "marked corrupt"),
        )
        counts = ", ".join(f"{count} {what}" for count, what in parts if count)
        return f"{self.damaged} of {self.pictures} pictures are damaged" + (f" ({counts})" if counts else "")
