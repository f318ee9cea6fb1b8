import numpy as np

from activity.batches import ClipBatches, augment_frames


def counting_stacks(*lengths):
    """Stacks `(N, 1)` whose values are 100 * sample + frame."""
    return [np.arange(100 * i, 100 * i + length, dtype=np.float32)[:, None] for i, length in enumerate(lengths)]


def batches(stacks, **options):
    return ClipBatches(stacks, range(len(stacks)), **{"num_frames": 4, "name": "features", "batch_size": 2, **options})


class TestClipBatches:
    def test_pads_on_the_right_and_masks(self):
        inputs, label_ids = batches(counting_stacks(4, 2))[0]
        np.testing.assert_array_equal(inputs["features"][..., 0], [[0, 1, 2, 3], [100, 101, 0, 0]])
        np.testing.assert_array_equal(inputs["mask"], [[1, 1, 1, 1], [1, 1, 0, 0]])
        assert label_ids.tolist() == [0, 1]

    def test_validation_sees_every_frame_of_a_long_stack_and_every_clip_once(self):
        data = batches(counting_stacks(11, 3, 4), batch_size=4)
        seen = np.concatenate([inputs["features"][inputs["mask"]].ravel() for inputs, _ in (data[0], data[1])])
        assert len(data) == 2
        assert set(seen) == {*range(11), *range(100, 103), *range(200, 204)}

    def test_training_takes_one_random_window_of_each_stack_an_epoch(self):
        data = batches(counting_stacks(40, 3, 4), training=True, batch_size=3)
        firsts, orders = set(), set()
        for epoch in range(20):
            data.start_epoch(epoch)
            inputs, label_ids = data[0]
            assert sorted(label_ids) == [0, 1, 2]
            clip = inputs["features"][label_ids.tolist().index(0), :, 0]
            assert (np.diff(clip) == 1).all() and 0 <= clip[0] <= 36
            firsts.add(clip[0])
            orders.add(tuple(label_ids))
        assert len(firsts) > 10 and len(orders) > 3

    def test_an_epoch_is_the_same_again_for_the_same_seed(self):
        def epoch(seed, number):
            data = batches(counting_stacks(40, 30, 20), training=True, batch_size=3, seed=seed)
            data.start_epoch(number)
            return data[0][0]["features"].tolist()

        assert epoch(0, 5) == epoch(0, 5)
        assert epoch(0, 5) != epoch(0, 6)
        assert epoch(0, 5) != epoch(1, 5)


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
