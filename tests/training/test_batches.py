import numpy as np
import pytest
from keras import ops

from activity.training.batches import FeatureBatches, FrameBatches, augment_frames
from activity.video.clips import pad_right


def counting_stacks(*lengths):
    """Stacks `(N, 1)` whose values are 100 * sample + frame."""
    return [np.arange(100 * i, 100 * i + length, dtype=np.float32)[:, None] for i, length in enumerate(lengths)]


@pytest.fixture(params=[FeatureBatches, FrameBatches])
def batches(request):
    def make(stacks, **options):
        return request.param(stacks, np.eye(len(stacks)), **{"num_frames": 4, "batch_size": 2, **options})

    return make


def epoch(data, number=0):
    """Its batches as NumPy arrays: clips, masks, label ids."""
    return [(ops.convert_to_numpy(x[data.name]), x["mask"], y.argmax(axis=1)) for x, y in data.epoch(number)]


class TestClipBatches:
    def test_pads_on_the_right_and_masks(self, batches):
        ((clips, mask, label_ids),) = epoch(batches(counting_stacks(4, 2)))
        np.testing.assert_array_equal(clips[..., 0], [[0, 1, 2, 3], [100, 101, 0, 0]])
        np.testing.assert_array_equal(mask, [[1, 1, 1, 1], [1, 1, 0, 0]])
        assert label_ids.tolist() == [0, 1]

    def test_validation_sees_every_frame_of_a_long_stack_and_every_clip_once(self, batches):
        data = batches(counting_stacks(11, 3, 4), batch_size=4)
        clips, masks, label_ids = (np.concatenate(parts) for parts in zip(*epoch(data), strict=True))
        assert len(data) == 2
        assert set(clips[masks].ravel()) == {*range(11), *range(100, 103), *range(200, 204)}
        assert label_ids[: data.num_windows].tolist() == [0, 0, 0, 0, 0, 1, 2]

    def test_the_last_batch_is_filled_up_with_the_first_clips(self, batches):
        whole, rest = epoch(batches(counting_stacks(4, 2, 3), training=True))
        assert len(rest[2]) == 2 and {*whole[2], rest[2][0]} == {0, 1, 2}
        for of_whole, of_rest in zip(whole, rest, strict=True):
            np.testing.assert_array_equal(of_rest[1], of_whole[0])

    def test_a_batch_has_no_more_clips_than_there_are(self, batches):
        ((_, _, label_ids),) = epoch(batches(counting_stacks(4, 2, 3), batch_size=16))
        assert label_ids.tolist() == [0, 1, 2]

    def test_training_takes_one_random_window_of_each_stack_an_epoch(self, batches):
        data = batches(counting_stacks(40, 3, 4), training=True, batch_size=3)
        firsts, orders = set(), set()
        for number in range(20):
            ((clips, _, label_ids),) = epoch(data, number)
            assert sorted(label_ids) == [0, 1, 2]
            clip = clips[label_ids.tolist().index(0), :, 0]
            assert (np.diff(clip) == 1).all() and 0 <= clip[0] <= 36
            firsts.add(clip[0])
            orders.add(tuple(label_ids))
        assert len(firsts) > 10 and len(orders) > 3

    def test_windows_and_their_order_are_drawn_as_ever(self, batches):
        """The same seed gives the clips that it gave when each was cut out and padded on its own."""
        stacks = counting_stacks(40, 3, 4, 30, 9)
        lengths = [len(stack) for stack in stacks]
        data = batches(stacks, training=True, seed=7)
        for number in (0, 5):
            rng = np.random.default_rng([7, number])
            starts = rng.integers(0, [max(0, length - 4) for length in lengths], endpoint=True)
            cut = [pad_right(stacks[i][starts[i] : starts[i] + 4], 4) for i in rng.permutation(5)]
            clips, masks, _ = (np.concatenate(parts)[:5] for parts in zip(*epoch(data, number), strict=True))
            np.testing.assert_array_equal(clips, [clip for clip, _ in cut])
            np.testing.assert_array_equal(masks, [mask for _, mask in cut])

    def test_an_epoch_is_the_same_again_for_the_same_seed(self, batches):
        def clips(seed, number):
            return epoch(batches(counting_stacks(40, 30, 20), training=True, batch_size=3, seed=seed), number)[0][0]

        assert np.array_equal(clips(0, 5), clips(0, 5))
        assert not np.array_equal(clips(0, 5), clips(0, 6))
        assert not np.array_equal(clips(0, 5), clips(1, 5))

    def test_an_epoch_does_not_depend_on_those_before_it(self):
        frames = [np.random.default_rng(i).integers(0, 256, (5, 1, 32, 32, 3), np.uint8) for i in range(5)]
        options = {"num_frames": 4, "batch_size": 2, "training": True, "augment": ["rgb"], "flip": True}
        whole, resumed = (FrameBatches(frames, np.eye(5), **options) for _ in range(2))
        epoch(whole, 0)
        for a, b in zip(epoch(whole, 1), epoch(resumed, 1), strict=True):
            for of_a, of_b in zip(a, b, strict=True):
                np.testing.assert_array_equal(of_a, of_b)
        assert not np.array_equal(epoch(whole, 0)[0][0][:1], epoch(whole, 1)[0][0][:1])

    def test_validation_frames_are_not_augmented(self):
        frames = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32, 3), np.uint8)
        ((clips, _, _),) = epoch(FrameBatches([frames], [[1]], num_frames=4, batch_size=2, augment=["rgb"], flip=True))
        np.testing.assert_array_equal(clips[0], frames)

    @pytest.mark.parametrize("limits", [{"most_on_device": 0}, {"most_in_memory": 0}, {}])
    @pytest.mark.parametrize("mixup", [0.0, 0.4])
    def test_features_are_the_same_wherever_their_table_is(self, limits, mixup):
        stacks = [np.random.default_rng(i).random((5 + i, 3)).astype(np.float32) for i in range(7)]
        options = {"num_frames": 6, "batch_size": 3, "training": True, "mixup": mixup}
        other = FeatureBatches(iter(stacks), np.eye(7), **options, **limits)
        for of_one, of_other in zip(epoch(FeatureBatches(stacks, np.eye(7), **options)), epoch(other), strict=True):
            for a, b in zip(of_one, of_other, strict=True):
                np.testing.assert_array_equal(a, b)


class TestMixup:
    OPTIONS = {"num_frames": 4, "batch_size": 6, "training": True, "mixup": 0.4}

    def batch(self, lengths, folds=None, number=0, **options):
        """Clips, masks and targets of an epoch; frame f of stack i has a 1 at place i, or 0 on padding, and f."""
        eye = np.eye(len(lengths), dtype=np.float32)
        stacks = [np.stack([eye[i]] * length)[:, None] for i, length in enumerate(lengths)]  # (N, 1, V)
        data = FeatureBatches(stacks, eye, folds=folds, **{**self.OPTIONS, **options})
        ((inputs, targets),) = data.epoch(number)
        return ops.convert_to_numpy(inputs["features"])[:, :, 0], ops.convert_to_numpy(inputs["mask"]), targets

    def test_clips_and_targets_are_mixed_by_the_same_shares(self):
        clips, masks, targets = self.batch([4] * 6)
        assert masks.all()
        for clip, target in zip(clips, targets, strict=True):
            np.testing.assert_allclose(clip, np.tile(target, (4, 1)), atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        assert 0.5 <= targets.max(axis=1).min() < 0.99 and sorted(targets.argmax(axis=1)) == list(range(6))

    def test_the_mask_is_that_of_the_larger_share(self):
        lengths = [1, 2, 3, 4, 6, 9]
        for number in range(5):
            clips, masks, targets = self.batch(lengths, number=number)
            firsts = targets.argmax(axis=1)
            np.testing.assert_array_equal(masks.sum(axis=1), np.minimum(np.array(lengths)[firsts], 4))
            assert (clips[~masks] == 0).all()
            np.testing.assert_allclose(clips[np.arange(6), 0], targets, atol=1e-6)

    def test_only_clips_of_one_fold_are_mixed(self):
        folds = np.array([0, 1, 2, 0, 1, 2])
        partners = set()
        for number in range(10):
            _, _, targets = self.batch([4] * 6, folds, number)
            np.testing.assert_allclose(targets[:, -1], folds[targets[:, :-1].argmax(axis=1)], atol=1e-6)
            partners |= {tuple(np.flatnonzero(target)) for target in targets[:, :-1] > 0}
        assert partners == {(0,), (1,), (2,), (3,), (4,), (5,), (0, 3), (1, 4), (2, 5)}

    def test_an_epoch_is_the_same_again(self):
        for a, b in zip(self.batch([4, 9, 9], seed=1), self.batch([4, 9, 9], seed=1), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(self.batch([4, 9, 9])[2], self.batch([4, 9, 9], number=1)[2])

    @pytest.mark.parametrize("off", [{"mixup": 0.0}, {"training": False}])
    def test_not_where_it_is_off(self, off):
        _, _, targets = self.batch([4] * 6, **off)
        assert set(targets.ravel()) == {0, 1}


class TestAugmentation:
    def test_all_frames_of_a_clip_change_alike(self):
        frame = np.random.default_rng(0).integers(0, 200, (32, 32, 3), np.uint8)
        clip = np.stack([frame] * 5)[:, None]
        changed = [augment_frames(clip, np.random.default_rng(i), streams=["rgb"], flip=True) for i in range(10)]
        assert all((result == result[:1]).all() for result in changed)
        assert len({result.tobytes() for result in changed}) == 10
        assert all(result.shape == clip.shape and result.dtype == np.uint8 for result in changed)

    def test_mirrors_only_when_asked(self):
        left = np.zeros((1, 1, 32, 32, 3), np.uint8)
        left[:, :, :, :8] = 200

        def is_left(flip, seed):
            result = augment_frames(left, np.random.default_rng(seed), streams=["rgb"], flip=flip)
            return result[..., :16, :].mean() > result[..., 16:, :].mean()

        assert all(is_left(False, seed) for seed in range(20))
        assert 3 < sum(is_left(True, seed) for seed in range(20)) < 17

    def test_where_nothing_moves_stays_where_nothing_moves(self):
        clip = np.full((2, 2, 32, 32, 3), 128, np.uint8)
        for seed in range(10):
            rgb, motion = augment_frames(
                clip, np.random.default_rng(seed), streams=["rgb", "motion"], flip=True
            ).transpose(1, 0, 2, 3, 4)
            assert (motion == 128).all()
            assert (rgb == rgb.flat[0]).all() and rgb.flat[0] != 128

    def test_streams_of_a_clip_are_shifted_alike(self):
        clip = np.zeros((1, 2, 32, 32, 3), np.uint8)
        clip[:, :, 10:20, 10:20] = 200
        for seed in range(10):
            rgb, other = augment_frames(clip, np.random.default_rng(seed), streams=["rgb", "rgb"], flip=True)[0]
            np.testing.assert_array_equal(rgb, other)
