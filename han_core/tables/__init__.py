"""CSV files whose lines carry checksums."""
