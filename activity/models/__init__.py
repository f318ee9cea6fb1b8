"""Frames to probabilities: layers, backbones, heads, the classifier and its file."""
