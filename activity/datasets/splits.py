"""Divide samples into splits or folds by whole groups; scikit-learn does the dividing."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from activity.datasets.samples import Sample, content_of, file_of, in_order, name_some
from activity.errors import DatasetError

_NEW_GROUPS_TO_SPLIT = 5  # with fewer new groups than this, all of them go to train


_logger = logging.getLogger(__name__)


def assign_splits(samples: Sequence[Sample], *, seed: int = 0) -> list[Sample]:
    """Give every sample a split: its own where it has one, else about 64 % train, 16 % val, 20 % test by groups.

    Labels are kept as balanced as whole groups allow (scikit-learn's `StratifiedGroupKFold`), and samples without a
    label as if that were one more. Splits that came with the data stay; if they hold no `val`, it is taken from
    `train`, if that has groups enough: most recipes need none.

    Raises:
        DatasetError: only some samples have a split, none is in train, too few groups, or a group in two splits.
    """
    with_split = [sample for sample in samples if sample.split]
    if with_split and len(with_split) < len(samples):
        first = next(sample.name for sample in samples if not sample.split)
        raise DatasetError(f"{len(samples) - len(with_split)} of {len(samples)} videos have no split, first: {first}")
    result = list(samples)
    if with_split:
        check_leaks(samples)
    else:
        audit = audit_leaks(samples)
        if audit.num_ungrouped:
            _logger.warning("%s; add a 'group' column in a manifest.csv to keep such videos together", audit.on_groups)
        result = hold_out(result, "test", 5, seed)
    if not any(sample.split == "val" for sample in result):
        trained = [sample for sample in result if sample.split in ("", "train")]
        groups = [sample.group for sample in trained]
        if trained and _most_folds([sample.label for sample in trained], groups) < 2:
            reason = f"the train part has {len(set(groups))} groups, {len(trained)} videos"
            _logger.warning("no val part: %s; without one, a backbone that is trained cannot be calibrated", reason)
            result = [dataclasses.replace(sample, split=sample.split or "train") for sample in result]
        else:
            result = hold_out(result, "val", 5, seed)
    check_leaks(result)
    return result


def extend_splits(samples: Sequence[Sample], known: Iterable[Sample], *, seed: int = 0) -> list[Sample]:
    """Assign splits so that a video that had one keeps it, renamed or not: a model may have been trained on it.

    Args:
        samples: with their ids.
        known: samples of an earlier run, with their ids and splits.
        seed: of the split of new groups.
    """
    split_of = {key: sample.split for sample in known for key in (sample.group, file_of(content_of(sample)))}
    if any(sample.split for sample in samples) or not split_of:
        return assign_splits(samples, seed=seed)
    splits: dict[str, str] = {}
    for sample in samples:
        split = split_of.get(sample.group) or split_of.get(file_of(content_of(sample)))
        if split:
            splits.setdefault(sample.group, split)
    kept = [dataclasses.replace(sample, split=splits[sample.group]) for sample in samples if sample.group in splits]
    new = [sample for sample in samples if sample.group not in splits]
    num_new_groups = len({sample.group for sample in new})
    if num_new_groups >= _NEW_GROUPS_TO_SPLIT:
        new = assign_splits(new, seed=seed)
    elif new:
        _logger.warning("%d new groups were added to train; too few to divide among the splits", num_new_groups)
        new = [dataclasses.replace(sample, split="train") for sample in new]
    return in_order(kept + new)


def join_copies(samples: Iterable[Sample]) -> list[Sample]:
    """Put files of identical content into one group: in two splits they would leak."""
    first: dict[str, Sample] = {}
    joined = []
    for sample in samples:
        twin = first.setdefault(content_of(sample), sample)
        original = first.setdefault(file_of(content_of(sample)), sample)
        if original.path != sample.path:
            differ = twin.label and sample.label and twin.label != sample.label
            other = f" under another label ({twin.label}, {sample.label})" if differ else ""
            _logger.warning("%s has the same content as %s%s", sample.name, original.path, other)
            sample = dataclasses.replace(sample, group=original.group)
        joined.append(sample)
    return joined


def hold_out(samples: Sequence[Sample], split: str, num_folds: int, seed: int) -> list[Sample]:
    """Move one of `num_folds` group folds of the training part to `split`; the rest of that part becomes `train`.

    Samples that are already in another split stay there.

    Args:
        samples: with or without splits.
        split: to fill, such as `test`.
        num_folds: 2 or more; fewer where there are fewer groups, or fewer videos of the most frequent label.
        seed: of the folds.

    Raises:
        DatasetError: the training part has too few groups.
    """
    pool = [i for i, sample in enumerate(samples) if sample.split in ("", "train")]
    if not pool:
        given = name_some({sample.split for sample in samples})
        raise DatasetError(f"there are no train videos: expected some in train, received {len(samples)} in {given}")
    labels = [samples[i].label for i in pool]
    groups = [samples[i].group for i in pool]
    num_folds = min(num_folds, _most_folds(labels, groups))
    if num_folds < 2:
        raise DatasetError(
            f"too few groups to hold out a {split} part: expected at least 2 groups, and 2 videos of some label; "
            f"received {len(set(groups))} groups, {len(pool)} videos"
        )
    folds = _group_folds(labels, groups, num_folds, seed)

    def num_labels(indices: Iterable[int]) -> int:
        return len({labels[i] for i in indices})

    # Of the folds, the one that leaves most labels in training and then has most labels itself.
    everything = set(range(len(pool)))
    chosen = max(folds, key=lambda fold: (num_labels(everything - fold), num_labels(fold)))
    result = list(samples)
    for i, index in enumerate(pool):
        result[index] = dataclasses.replace(samples[index], split=split if i in chosen else "train")
    return result


def assign_folds(samples: Sequence[Sample], folds: str, *, seed: int = 0) -> list[str]:
    """The fold of each sample; no group is in two folds.

    Args:
        samples: of a data set.
        folds: a number K of group folds, `groups` (each group is a fold), or a column of the manifest.
        seed: of the K folds.

    Raises:
        DatasetError: no such column, too few groups, or a column that divides a group.
    """
    groups = [sample.group for sample in samples]
    if folds == "groups":
        assigned = groups
    elif folds.isdecimal():
        labels = [sample.label for sample in samples]
        most = _most_folds(labels, groups)
        if most < 2:
            received = f"{len(set(groups))} groups, and at most {max(Counter(labels).values())} videos of a label"
            raise DatasetError(f"folds need two or more groups, and videos of some label; received {received}")
        if not 2 <= int(folds) <= most:
            limit = f"the number of {'groups' if most == len(set(groups)) else 'videos of the most frequent label'}"
            raise DatasetError(f"expected 2 to {most} folds ({limit}), received {folds}")
        numbered = enumerate(_group_folds(labels, groups, int(folds), seed))
        number_of = {index: str(number) for number, fold in numbered for index in fold}
        assigned = [number_of[index] for index in range(len(samples))]
    elif all(folds in sample.extra for sample in samples):
        assigned = [sample.extra[folds] for sample in samples]
    else:
        columns = ", ".join(samples[0].extra) or "none"
        raise DatasetError(f"the manifest has no column '{folds}'; expected a number, groups, or one of: {columns}")
    check_leaks(samples, [f"fold {fold}" for fold in assigned])
    if len(set(assigned)) < 2:
        raise DatasetError(f"cross-validation needs two or more folds, '{folds}' gives {len(set(assigned))}")
    return assigned


def _most_folds(labels: Sequence[str], groups: Sequence[str]) -> int:
    """More folds than this cannot be made: each has a group, and some label has a video in each."""
    return min(len(set(groups)), max(Counter(labels).values(), default=0))


def _group_folds(labels: Sequence[str], groups: Sequence[str], num_folds: int, seed: int) -> list[set[int]]:
    """Divide indices into folds by whole groups, with labels as balanced as that allows."""
    from sklearn.model_selection import StratifiedGroupKFold

    # Shuffled by our own ranks: up to scikit-learn 1.7, `shuffle=True` mixed up the groups it had to balance.
    names = sorted(set(groups))
    ranks = dict(zip(names, np.random.default_rng(seed).permutation(len(names)), strict=True))
    splitter = StratifiedGroupKFold(num_folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels rarer than the folds; the caller names them
        return [set(fold.tolist()) for _, fold in splitter.split(labels, labels, [ranks[group] for group in groups])]


def inner_folds(samples: Sequence[Sample], *, seed: int = 0, most: int = 5) -> np.ndarray | None:
    """The fold of each training sample, `(V,)`, by whole groups; fewer than `most` where there are fewer groups.

    `None`, with a line that says why, where a fold would leave a label without training videos.
    """
    labels, groups = [sample.label for sample in samples], [sample.group for sample in samples]
    for num_folds in range(min(most, _most_folds(labels, groups)), 1, -1):
        folds = np.zeros(len(samples), np.int32)
        for number, indices in enumerate(_group_folds(labels, groups, num_folds, seed)):
            folds[sorted(indices)] = number
        folds_of = {label: {fold for fold, of in zip(folds, labels, strict=True) if of == label} for label in labels}
        if min(map(len, folds_of.values())) > 1:
            return folds
    groups_of = {label: {group for group, of in zip(groups, labels, strict=True) if of == label} for label in labels}
    alone = [label for label, names in groups_of.items() if len(names) < 2]
    _logger.warning(
        "no out-of-fold predictions: %s; so the probabilities are not calibrated, and all models weigh the same",
        f"all training videos of {name_some(alone)} are of one group"
        if alone
        else "the groups cannot be divided so that each label stays in training",
    )
    return None


# === Leaks ===


@dataclass(frozen=True, kw_only=True)
class LeakAudit:
    """Findings on whether a score can be believed: what the data that it is computed on share with training data.

    Attributes:
        num_videos: that are scored.
        num_groups: of these videos.
        num_split_groups: of these groups, how many appear in more than one split (or fold).
        num_ungrouped: of these videos, how many have no known group; each counts as its own.
        num_trained: of these videos, how many the model was trained with, found by their content.
        examples: names of the groups that appear in more than one split, for a message.
    """

    num_videos: int
    num_groups: int
    num_split_groups: int
    num_ungrouped: int
    num_trained: int = 0
    examples: str = ""

    @property
    def on_groups(self) -> str:
        """One sentence on groups: split across splits, unknown, or disjoint."""
        if self.num_split_groups:
            verb = "group appears" if self.num_split_groups == 1 else "groups appear"
            return f"{self.num_split_groups} {verb} in more than one split: the score will be too optimistic"
        if not self.num_ungrouped:
            return "groups are disjoint: no person or recording, as they name them, appears in more than one split"
        several = "if several show one person or recording, the score will be too optimistic"
        if self.num_ungrouped == self.num_videos:
            return f"no groups known, each video counts as its own: {several}"
        verb = "has" if self.num_ungrouped == 1 else "have"
        some = f"{self.num_ungrouped} of {self.num_videos} videos {verb} no known group"
        return f"{some}, each counts as its own: {several}"

    @property
    def on_videos(self) -> str:
        """One sentence on videos of the training set among those that are scored; empty if there are none."""
        if not self.num_trained:
            return ""
        count = f"{self.num_trained} of these {self.num_videos} videos"
        return f"{count} were used to train this model: the score will be too optimistic"

    def sentences(self) -> list[str]:
        """All findings as sentences for a page, the leaks marked as warnings."""
        groups = f"{self.on_groups[0].upper()}{self.on_groups[1:]}."
        lines = [f"WARNING: {groups}" if self.num_split_groups else groups]
        return lines + [f"WARNING: {line}." for line in [self.on_videos] if line]


def audit_leaks(
    samples: Sequence[Sample],
    part_of: Sequence[str] | None = None,
    *,
    scored: Sequence[Sample] | None = None,
    trained: Iterable[str] = (),
) -> LeakAudit:
    """Find what makes a score too optimistic: groups in several splits, and training videos among the scored ones.

    Of a split of a data set: `audit_leaks(dataset.samples, scored=dataset.split("test"), trained=...)`; of a
    cross-validation: `audit_leaks(samples, folds)`; of all splits: `audit_leaks(dataset.samples)`.

    Args:
        samples: all of the data set.
        part_of: the split or fold of each; `None`: its `split`.
        scored: those that the score is computed on; `None`: all.
        trained: contents (`activity.datasets.samples.content_of`) of the videos that the model was trained with, as the
            training metadata of a model file lists them.
    """
    scored = samples if scored is None else scored
    parts: dict[str, set[str]] = {sample.group: set() for sample in scored}
    for sample, part in zip(samples, part_of or [sample.split for sample in samples], strict=True):
        parts.get(sample.group, set()).add(part)
    split_groups = sorted(group for group, found in parts.items() if len(found) > 1)
    first = f"; {split_groups[0]} is in {' and '.join(sorted(parts[split_groups[0]]))}" if split_groups else ""
    files, paths = {*map(file_of, trained)}, {sample.path for sample in samples}
    return LeakAudit(
        num_videos=len(scored),
        num_groups=len(parts),
        num_split_groups=len(split_groups),
        num_ungrouped=sum(sample.group in paths for sample in scored),
        num_trained=sum(file_of(content_of(sample)) in files for sample in scored),
        examples=f"{name_some(split_groups)}{first}",
    )


def check_leaks(samples: Sequence[Sample], part_of: Sequence[str] | None = None) -> None:
    """Raise `DatasetError` naming the groups that appear in more than one split."""
    audit = audit_leaks(samples, part_of)
    if audit.num_split_groups:
        raise DatasetError(f"{audit.on_groups} ({audit.examples})", hint="every group must keep to one split")
