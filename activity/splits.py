"""Divide samples into splits or folds by whole groups; scikit-learn does the dividing."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from activity.dataset import Sample, name_some
from activity.errors import DatasetError

_logger = logging.getLogger(__name__)


def assign_splits(samples: Sequence[Sample], *, seed: int = 0) -> list[Sample]:
    """Give every sample a split: its own where it has one, else about 64 % train, 16 % val, 20 % test by groups.

    Labels are kept as balanced as whole groups allow (scikit-learn's `StratifiedGroupKFold`). Splits that came with
    the data stay; if they hold no `val`, it is taken from `train`.

    Raises:
        DatasetError: only some samples have a split, too few groups, or a group in two splits.
    """
    with_split = [sample for sample in samples if sample.split]
    if with_split and len(with_split) < len(samples):
        first = next(sample.path for sample in samples if not sample.split)
        raise DatasetError(f"{len(samples) - len(with_split)} of {len(samples)} videos have no split, first: {first}")
    result = list(samples)
    if not with_split:
        if all(sample.group == sample.path for sample in samples):
            _logger.warning(
                "no groups known: each video counts as its own. If several show the same person or recording, the "
                "score will flatter; add a 'group' column in a manifest.csv to keep such clips together"
            )
        result = hold_out(result, "test", 5, seed)
    if not any(sample.split == "val" for sample in result):
        result = hold_out(result, "val", 5, seed)
    check_leaks(result)
    return result


def hold_out(samples: Sequence[Sample], split: str, num_folds: int, seed: int) -> list[Sample]:
    """Move one of `num_folds` group folds of the training part to `split`; the rest of that part becomes `train`.

    Samples that are already in another split stay there.

    Raises:
        DatasetError: the training part has too few groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    pool = [i for i, sample in enumerate(samples) if sample.split in ("", "train")]
    labels = [samples[i].label for i in pool]
    groups = [samples[i].group for i in pool]
    num_folds = min(num_folds, len(set(groups)), max(Counter(labels).values(), default=0))
    if num_folds < 2:
        raise DatasetError(
            f"too few groups to hold out a {split} part: expected at least 3 groups (and 3 videos of some label) for "
            f"train, val and test; received {len(set(groups))} groups, {len(pool)} videos"
        )
    with warnings.catch_warnings():
        # scikit-learn warns of labels rarer than the folds; the caller is told which labels a split lacks
        warnings.simplefilter("ignore", UserWarning)
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
        folds = list(splitter.split(labels, labels, groups))

    def num_labels(indices: Iterable[int]) -> int:
        return len({labels[i] for i in indices})

    # Of the folds, the one that leaves most labels in training and then has most labels itself.
    _, held_out = max(folds, key=lambda fold: (num_labels(fold[0]), num_labels(fold[1])))
    chosen = set(held_out.tolist())
    result = list(samples)
    for i, index in enumerate(pool):
        result[index] = dataclasses.replace(samples[index], split=split if i in chosen else "train")
    return result


def assign_folds(samples: Sequence[Sample], folds: str, *, seed: int = 0) -> list[str]:
    """The fold of each sample; a group never stands in two folds.

    Args:
        samples: of a data set.
        folds: a number K of group folds, `groups` (each group is a fold), or a column of the manifest.
        seed: of the K folds.

    Raises:
        DatasetError: no such column, too few groups, or a column that divides a group.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [sample.group for sample in samples]
    if folds == "groups":
        assigned = groups
    elif folds.isdecimal():
        if not 2 <= int(folds) <= len(set(groups)):
            raise DatasetError(f"expected 2 to {len(set(groups))} folds (the number of groups), received {folds}")
        labels = [sample.label for sample in samples]
        assigned = [""] * len(samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of labels rarer than the folds
            splitter = StratifiedGroupKFold(int(folds), shuffle=True, random_state=seed)
            for number, (_, indices) in enumerate(splitter.split(labels, labels, groups)):
                for index in indices:
                    assigned[index] = str(number)
    elif all(folds in sample.extra for sample in samples):
        assigned = [sample.extra[folds] for sample in samples]
    else:
        columns = ", ".join(samples[0].extra) or "none"
        raise DatasetError(f"the manifest has no column '{folds}'; expected a number, groups, or one of: {columns}")
    check_leaks(dataclasses.replace(s, split=f"fold {fold}") for s, fold in zip(samples, assigned, strict=True))
    if len(set(assigned)) < 2:
        raise DatasetError(f"cross-validation needs two or more folds, '{folds}' gives {len(set(assigned))}")
    return assigned


def check_leaks(samples: Iterable[Sample]) -> None:
    """Raise `DatasetError` naming the groups that stand in more than one split."""
    splits = defaultdict(set)
    for sample in samples:
        splits[sample.group].add(sample.split)
    leaks = sorted(group for group, found in splits.items() if len(found) > 1)
    if leaks:
        first = leaks[0]
        count = "1 group stands" if len(leaks) == 1 else f"{len(leaks)} groups stand"
        raise DatasetError(
            f"{count} in more than one split, so the score would flatter: {name_some(leaks)} "
            f"({first}: {', '.join(sorted(splits[first]))}); every group must keep to one split"
        )
