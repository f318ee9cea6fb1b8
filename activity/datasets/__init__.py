"""Labelled videos to a data set folder."""
