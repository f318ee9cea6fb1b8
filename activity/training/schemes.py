"""Ways to update a model, for the command line and `activity.training.updating`; nothing heavy is imported here."""

UPDATE_SCHEMES = (
    "replay",
    "new-only",
    "retrain",
)  # what they do: `updating.update`
