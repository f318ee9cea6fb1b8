"""How good a model is on videos it was not trained on."""
