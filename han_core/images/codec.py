"""Single encoded images, as they lie in clip files."""

import cv2
import numpy as np

from han_core.clipfile.decoding import decode_image
from han_core.clipfile.trailer import ClipFileError


def decode_grey(encoded: bytes) -> np.ndarray:
    """An encoded image as (H, W) uint8 grey; of a JPEG that is its luma, without the detour over colours.

    Raises:
        ClipFileError: the bytes are not an image.
    """
    try:
        return decode_image(encoded, cv2.IMREAD_GRAYSCALE)
    except ClipFileError as error:
        raise ClipFileError(f"a frame of the frames file {error}; remove the file and run decode again") from None


def encode_image(image: np.ndarray, codec: str, quality: int) -> bytes:
    """Encode a grey (H, W) or BGR (H, W, 3) uint8 image as ``jpeg`` of a quality, or as ``png``."""
    if codec == "jpeg":
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    elif codec == "png":
        done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    else:
        raise ValueError(f"codec: {codec!r} is not one of jpeg, png")
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be encoded as {codec}")
    return encoded.tobytes()
