"""Results for people: figures, pages, timelines, annotated videos, model cards."""
