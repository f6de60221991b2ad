"""Encoded images in clip files: the codec, the frames file, a reader for random access."""
