import dataclasses
import logging
from collections import Counter, defaultdict

import pytest

from activity.datasets.samples import Sample, labels_without
from activity.datasets.splits import assign_folds, assign_splits, audit_leaks, check_leaks, inner_folds, join_copies
from activity.errors import DatasetError


def make_samples(num_groups, labels=("jump", "run", "wave"), takes=2):
    return [
        Sample(path=f"{label}/p{group}_{take}.avi", label=label, group=f"p{group}")
        for label in labels
        for group in range(num_groups)
        for take in range(takes)
    ]


def splits_by_group(samples):
    splits = defaultdict(set)
    for sample in samples:
        splits[sample.group].add(sample.split)
    return splits


@pytest.mark.parametrize("num_groups", [3, 4, 5, 9, 25])
@pytest.mark.parametrize("seed", range(5))
def test_groups_keep_together_and_no_label_is_left_out(num_groups, seed):
    samples = assign_splits(make_samples(num_groups), seed=seed)
    assert all(len(splits) == 1 for splits in splits_by_group(samples).values())
    for split in ("train", "val", "test"):
        assert labels_without(samples, split) == []
    assert [sample.path for sample in samples] == [sample.path for sample in make_samples(num_groups)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "groups_of", [{"run": "abcdefgh", "walk": "ij"}, {"run": "ab", "walk": "cd"}, {"run": "abc", "walk": "abc"}]
)
def test_inner_folds_keep_groups_together_and_leave_each_label_in_training(groups_of, seed):
    samples = [
        Sample(path=f"{label}/{group}{take}.avi", label=label, group=group)
        for label, groups in groups_of.items()
        for group in groups
        for take in range(2)
    ]
    folds = inner_folds(samples, seed=seed)
    assert len(set(zip([s.group for s in samples], folds, strict=True))) == len({s.group for s in samples})
    for fold in set(folds):
        trained = {sample.label for sample, of in zip(samples, folds, strict=True) if of != fold}
        assert trained == set(groups_of)


def test_inner_folds_of_few_videos_of_each_label():
    samples = [dataclasses.replace(x, group=x.path) for x in make_samples(4, labels=("run", "walk"), takes=1)]
    folds = inner_folds(samples)
    assert len(set(folds)) == 4
    for fold in set(folds):
        assert {x.label for x, of in zip(samples, folds, strict=True) if of != fold} == {"run", "walk"}


def test_a_label_of_one_group_has_no_inner_folds_and_it_is_said(caplog):
    samples = [*make_samples(4, labels=("run",)), *make_samples(1, labels=("walk",))]
    assert inner_folds(samples) is None
    assert "no out-of-fold predictions: all training videos of walk are of one group" in caplog.text


def test_samples_without_labels_are_divided_by_groups():
    samples = assign_splits(make_samples(25, labels=("",)), seed=1)
    assert all(len(splits) == 1 for splits in splits_by_group(samples).values())
    assert Counter(sample.split for sample in samples) == {"train": 32, "val": 8, "test": 10}
    assert Counter(assign_folds(samples, "5")) == {str(number): 10 for number in range(5)}


def test_samples_without_labels_beside_labelled_ones_are_in_each_split():
    for seed in range(5):
        samples = assign_splits(make_samples(10, labels=("run", "", "walk")), seed=seed)
        for split in ("train", "val", "test"):
            assert {sample.label for sample in samples if sample.split == split} == {"run", "", "walk"}


def test_fractions_of_the_splits():
    counts = Counter(sample.split for sample in assign_splits(make_samples(25)))
    assert counts == {"test": 30, "val": 24, "train": 96}  # of 150: 20, 16 and 64 %


def test_splits_depend_on_the_seed_only():
    samples = make_samples(12)
    assert assign_splits(samples, seed=3) == assign_splits(samples, seed=3)
    assert assign_splits(samples, seed=3) != assign_splits(samples, seed=4)


def test_a_label_of_a_single_video_is_trained_on():
    lonely = Sample(path="fall/a.avi", label="fall", group="fall/a.avi")
    for seed in range(10):
        samples = assign_splits([*make_samples(6), lonely], seed=seed)
        assert samples[-1].split == "train"
        assert labels_without(samples, "test") == ["fall"]


def test_groups_of_one_label_each():
    samples = [
        Sample(path=f"{label}/{i}.avi", label=label, group=f"{label}{i // 2}") for label in "abcd" for i in range(10)
    ]
    samples = assign_splits(samples)
    assert all(len(splits) == 1 for splits in splits_by_group(samples).values())
    assert [labels_without(samples, split) for split in ("train", "val", "test")] == [[], [], []]


def with_split(samples, split_of):
    return [Sample(path=s.path, label=s.label, group=s.group, split=split_of(s)) for s in samples]


def test_val_is_taken_from_train_where_the_data_have_none():
    given = with_split(make_samples(8), lambda s: "test" if s.group in ("p0", "p1") else "train")
    samples = assign_splits(given)
    assert {s.group for s in samples if s.split == "test"} == {"p0", "p1"}
    assert len({s.group for s in samples if s.split == "val"}) == 2  # a fifth of eight groups is more than one
    assert Counter(s.split for s in samples) == {"test": 12, "val": 12, "train": 24}
    check_leaks(samples)


def test_splits_of_the_data_are_kept():
    given = with_split(make_samples(6), lambda s: {"p0": "val", "p1": "test"}.get(s.group, "train"))
    assert assign_splits(given, seed=7) == given


def test_a_leak_is_named_before_val_is_held_out():
    given = with_split(make_samples(2), lambda s: "test" if s.path.endswith("p0_1.avi") or s.group == "p1" else "train")
    with pytest.raises(DatasetError, match="1 group appears in more than one split"):
        assign_splits(given)


def test_nothing_to_train_on():
    given = with_split(make_samples(3), lambda s: "test")
    with pytest.raises(DatasetError, match="there are no train videos: expected some in train, received 18 in test"):
        assign_splits(given)


def test_some_have_a_split_and_some_have_none():
    given = with_split(make_samples(3), lambda s: "train" if s.group == "p0" else "")
    with pytest.raises(DatasetError, match="12 of 18 videos have no split, first: jump/p1_0.avi"):
        assign_splits(given)


def test_too_few_groups():
    message = "too few groups to hold out a test part: expected at least 2 groups, .* received 1 groups, 6 videos"
    with pytest.raises(DatasetError, match=message):
        assign_splits(make_samples(1))


def test_of_two_groups_one_is_trained_on_and_one_tested(caplog):
    assert set(map(frozenset, splits_by_group(assign_splits(make_samples(2))).values())) == {
        frozenset({"train"}),
        frozenset({"test"}),
    }
    assert "no val part: the train part has 1 groups, 6 videos; without one, a backbone that is trained" in caplog.text


def test_splits_of_one_group_each_are_kept_without_val():
    given = with_split(make_samples(2), lambda s: {"p0": "train", "p1": "test"}[s.group])
    assert assign_splits(given) == given


def test_one_video_of_each_label():
    with pytest.raises(DatasetError, match="and 2 videos of some label"):
        assign_splits([Sample(path=label, label=label, group=label) for label in "abcdef"])


def test_unknown_groups_are_reported(caplog):
    caplog.set_level(logging.WARNING)
    assign_splits(make_samples(5))
    assert not caplog.text
    assign_splits([Sample(path=f"{i}.avi", label="ab"[i % 2], group=f"{i}.avi") for i in range(10)])
    assert "no groups known, each video counts as its own" in caplog.text


def test_copies_differ_in_their_label_only_where_both_have_one(caplog):
    samples = [
        Sample(path=f"{i}.avi", label=label, group=f"{i}", sample_id=f"{i}-0123456789abcdef")
        for i, label in enumerate(["run", "", "walk"])
    ]
    assert {sample.group for sample in join_copies(samples)} == {"0"}
    assert "1.avi has the same content as 0.avi\n" in caplog.text
    assert "2.avi has the same content as 0.avi under another label (run, walk)" in caplog.text


def test_leaks_are_named():
    samples = with_split(make_samples(7), lambda s: "test" if s.path.endswith("_1.avi") else "train")
    message = (
        r"7 groups appear in more than one split: the score will be too optimistic \(p0, p1, p2, p3, p4 and 2 more; "
        r"p0 is in test and train\); every group must keep to one split"
    )
    with pytest.raises(DatasetError, match=message):
        check_leaks(samples)
    with pytest.raises(DatasetError, match="groups appear in more than one split"):
        assign_splits([*samples, Sample(path="v", label="run", group="v", split="val")])


def test_an_audit_of_disjoint_groups():
    samples = assign_splits(make_samples(6))
    audit = audit_leaks(samples)
    assert (audit.num_videos, audit.num_groups, audit.num_split_groups, audit.num_trained) == (36, 6, 0, 0)
    assert audit.sentences() == [
        "Groups are disjoint: no person or recording, as they name them, appears in more than one split."
    ]


def test_an_audit_counts_only_groups_of_the_scored_videos():
    samples = with_split(make_samples(4), lambda s: "test" if s.path.endswith(("p0_1.avi", "p1_1.avi")) else "train")
    scored = [sample for sample in samples if sample.path.endswith("p0_1.avi")]
    audit = audit_leaks(samples, scored=scored)
    assert (audit.num_videos, audit.num_groups, audit.num_split_groups) == (3, 1, 1)
    assert audit.examples == "p0; p0 is in test and train"
    assert audit.sentences() == ["WARNING: 1 group appears in more than one split: the score will be too optimistic."]


def test_an_audit_of_folds():
    samples = make_samples(3)
    by_take = [sample.path[-5] for sample in samples]
    assert audit_leaks(samples, by_take).num_split_groups == 3
    assert audit_leaks(samples, [sample.group for sample in samples]).num_split_groups == 0


def test_an_audit_finds_training_videos_by_content():
    samples = [
        Sample(path=f"{i}.avi", label="ab"[i % 2], group=f"{i}.avi", sample_id=f"{i}.avi-{i:016x}{times}")
        for i, times in enumerate(["", "_0_1.5", "_2_3", ""])
    ]
    audit = audit_leaks(samples, scored=samples[:3], trained=[f"{0:016x}", f"{1:016x}_7_8", f"{3:016x}"])
    assert audit.num_trained == 2 and audit.num_ungrouped == 3  # a segment of a known file counts too
    assert audit.sentences() == [
        "No groups known, each video counts as its own: if several show one person or recording, the score will be too "
        "optimistic.",
        "WARNING: 2 of these 3 videos were used to train this model: the score will be too optimistic.",
    ]


# === Folds ===


def folds_by_group(samples, folds):
    found = defaultdict(set)
    for sample, fold in zip(samples, folds, strict=True):
        found[sample.group].add(fold)
    return found


def test_numbered_folds_keep_groups_together():
    samples = make_samples(7)
    folds = assign_folds(samples, "3", seed=0)
    assert set(folds) == {"0", "1", "2"}
    assert all(len(found) == 1 for found in folds_by_group(samples, folds).values())
    assert folds == assign_folds(samples, "3", seed=0)


def test_each_group_may_be_a_fold():
    samples = make_samples(4)
    assert assign_folds(samples, "groups") == [sample.group for sample in samples]


def test_a_column_of_the_manifest_may_name_the_folds():
    samples = [dataclasses.replace(s, extra={"camera": s.group[-1], "take": s.path[-5]}) for s in make_samples(2)]
    assert assign_folds(samples, "camera") == [sample.group[-1] for sample in samples]
    with pytest.raises(DatasetError, match="2 groups appear in more than one split"):
        assign_folds(samples, "take")  # takes of one person would be on both sides
    with pytest.raises(DatasetError, match="no column 'place'; expected a number, groups, or one of: camera, take"):
        assign_folds(samples, "place")


@pytest.mark.parametrize("folds", ["1", "5"])
def test_more_folds_than_groups_or_only_one(folds):
    with pytest.raises(DatasetError, match=rf"expected 2 to 4 folds \(the number of groups\), received {folds}"):
        assign_folds(make_samples(4), folds)


def test_more_folds_than_videos_of_a_label():
    samples = [dataclasses.replace(x, group=x.path) for x in make_samples(3, labels=("run", "walk"), takes=1)]
    with pytest.raises(DatasetError, match=r"expected 2 to 3 folds \(the number of videos of the most "):
        assign_folds(samples, "5")
    assert len(set(assign_folds(samples, "3"))) == 3
    alone = "received 2 groups, and at most 1 videos of a label"
    with pytest.raises(DatasetError, match=f"folds need two or more groups, and videos of some label; {alone}"):
        assign_folds(samples[::3], "2")


def test_one_known_group_does_not_hide_that_the_others_are_unknown(caplog):
    paths = [f"run/{n}.avi" for n in range(11)]
    samples = [Sample(path=path, label="run", group=path) for path in paths]
    samples.append(Sample(path="run/v_Run_g1_c1.avi", label="run", group="v_Run_g1"))
    assign_splits(samples)
    assert "11 of 12 videos have no known group, each counts as its own: if several show one" in caplog.text
    assert audit_leaks(samples, scored=samples[-1:]).num_ungrouped == 0
