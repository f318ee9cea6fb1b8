"""A trained model labels new videos: files, timelines, live streams, explanations."""
