"""Safetensors files that carry a checksum of all they hold."""
