"""The part of a model file that tells how the model came about; `activity.reports.card` reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from activity.config import TrainConfig
from activity.datasets.dataset import Dataset
from activity.datasets.samples import SPLITS, content_of
from activity.datasets.splits import audit_leaks
from activity.models.info import TrainingRecord
from activity.training.fitting import Stage


def record_of(dataset: Dataset, config: TrainConfig, stages: Sequence[Stage]) -> TrainingRecord:
    """How a model was trained, and on which videos."""
    of = {split: [sample for sample in dataset.samples if sample.split == split] for split in SPLITS}
    labels = {split: Counter(sample.label for sample in of[split]) for split in SPLITS}
    groups = {split: {sample.group for sample in of[split]} for split in SPLITS}
    return TrainingRecord(
        training=config,
        dataset=str(dataset.dataset_dir),
        num_videos={split: len(of[split]) for split in SPLITS},
        counts={label: {split: labels[split][label] for split in SPLITS} for label in dataset.labels},
        num_groups={split: len(groups[split]) for split in SPLITS},
        num_split_groups=audit_leaks(dataset.samples).num_split_groups,
        trained=tuple(sorted({content_of(sample) for sample in of["train"] + of["val"]})),
        held_out=tuple(sorted({content_of(sample) for sample in of["test"]})),
        **when(stages),
    )


def when(stages: Sequence[Stage]) -> dict[str, Any]:
    """The `date` (now, UTC) and how many `seconds` the stages took: all that is not the same again for a seed."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"date": now, "seconds": round(sum(stage.seconds for stage in stages), 1)}
