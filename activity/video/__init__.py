"""A file or a camera to sampled, padded, masked frames."""
