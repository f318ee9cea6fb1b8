"""A data set and a recipe to a trained model."""
