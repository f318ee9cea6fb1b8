"""Learn to recognise the activities in a folder of labelled videos, then label any new video."""

__version__ = "0.1.0"
