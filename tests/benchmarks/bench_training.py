"""Training with features cached against the same model end to end with stock Keras; and where the time goes.

python tests/benchmarks/bench_training.py DATASET [--epochs 50] [--stock-steps 3] [--rounds 5] [--only PART]

DATASET is a folder made by `activity preprocess` with videos in the splits train and val; nothing is written into it.

    course     all of `activity train`, from the frame stacks on, so that computing the features counts, against
               `TimeDistributed(frozen backbone)` and the same head in `Model.fit`, which sees all frames in each epoch.
               Both compute the same function and take the same steps. Of the stock model only the first step and some
               more are measured; its course is extrapolated from them.
    step       of the head alone: the compiled step on a batch that is already there, what it takes inside our training,
               and inside `Model.fit` on arrays.
    waiting    share of the time in which the network waits for its next batch, in fine-tuning and from scratch.
"""

import argparse
import dataclasses
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import keras
import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import Stacks, load_dataset, stream_dir
from activity.models import classifier as classifier_module
from activity.models import heads
from activity.models.layers import uses_jit
from activity.runtimes.features import extract_features
from activity.training import fitting
from activity.training.batches import FeatureBatches, FrameBatches
from activity.training.trainer import build_classifier, train


def without_features(dataset, folder):
    """The same data set in another folder, with links to its stacks and nothing cached."""
    for name in ("dataset.json", "manifest.csv"):
        shutil.copy(dataset.dataset_dir / name, folder)
    for stream in dataset.spec.streams:
        (folder / stream_dir(folder, stream).name).symlink_to(stream_dir(dataset.dataset_dir, stream).resolve())
    return dataclasses.replace(dataset, dataset_dir=folder)


def compiled(model):
    optimizer = keras.optimizers.AdamW(1e-3, clipnorm=1.0)
    metric = keras.metrics.MeanMetricWrapper(fitting.accuracy_of_members, name="accuracy")
    model.compile(optimizer, loss=fitting.loss_of_members, metrics=[metric], jit_compile=uses_jit())
    optimizer.build(model.trainable_variables)
    return model


def seconds(function, *arguments, **options):
    start = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - start, result


class Feed(keras.utils.PyDataset):
    """Batches as a stock Keras program would make them."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class StepTimes(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def targets_of(dataset, samples):
    """`(V, C)`, 1 at the label of each sample."""
    return np.eye(len(dataset.labels), dtype=np.float32)[[dataset.labels.index(sample.label) for sample in samples]]


def measure_course(dataset, arguments):
    config = TrainConfig(head="chunks", stack=False, val_split=True, epochs=arguments.epochs)
    of = {split: len([s for s in dataset.samples if s.split == split]) for split in ("train", "val")}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work_dir:
        ours, run = seconds(train, without_features(dataset, Path(folder)), config, work_dir=Path(work_dir))
    print(f"{of['train']} training and {of['val']} validation clips, {dataset.spec}, {config.epochs} epochs")
    print(f"ours, features and head     {ours:8.1f} s   {run.stages[0].as_text()}", flush=True)

    classifier = build_classifier(dataset, config)
    classifier.backbone.trainable = False
    with mock.patch.object(classifier_module, "TimeDistributed", keras.layers.TimeDistributed):
        building, model = seconds(lambda: compiled(classifier.member_predictions(classifier.backbone)))
    samples = dataset.split("train")
    batches = FrameBatches(
        Stacks(dataset.frames, samples, dataset.spec.streams),
        targets_of(dataset, samples),
        num_frames=dataset.spec.num_frames,
        batch_size=config.batch_size,
    )
    batch, times = next(batches.epoch(0)), StepTimes()
    model.fit(Feed([batch] * (1 + arguments.stock_steps)), epochs=1, shuffle=False, verbose=0, callbacks=[times])
    first, step = times.seconds[0], statistics.median(times.seconds[1:])
    whole = building + first + (config.epochs * len(batches) - 1) * step
    print(f"stock, end to end           {whole:8.1f} s   extrapolated, without validation: built in {building:.1f} s,")
    print(f"    first step {first:.1f} s, {config.epochs} epochs of {len(batches)} steps of {step:.2f} s")
    print(f"stock / ours                {whole / ours:8.1f}", flush=True)


def measure_step(dataset, arguments, name, members):
    samples = dataset.split("train")
    config = TrainConfig(head=name, members=members)
    classifier = build_classifier(dataset, config)
    features = extract_features(dataset, samples, classifier.backbone, keep=False)
    head, num_frames = classifier.head, dataset.spec.num_frames
    heads.adapt(head, features)
    targets = targets_of(dataset, samples)
    options = {"num_frames": num_frames, "batch_size": config.batch_size, "training": True}
    batches = FeatureBatches(heads.prepared(head, features), targets, mixup=config.mixup, **options)
    model, by_fit = (
        compiled(heads.member_predictions_of_prepared(head)),
        compiled(heads.member_predictions_of(head)),
    )
    inputs, of_batch = next(batches.epoch(0))
    tracing = seconds(model.train_on_batch, inputs, of_batch)[0]

    import tensorflow as tf  # only the bare step asks for it

    resident = iter(tf.data.Dataset.from_tensors((inputs, of_batch)).repeat())
    length, num_epochs = len(batches), max(1, 30 // len(batches))

    def bare():
        for _ in range(length * num_epochs):
            logs = model.train_function(resident)
        return [float(value) for value in keras.tree.flatten(logs)]

    whole = FeatureBatches(features, targets, **{**options, "training": False, "batch_size": len(targets)})
    arrays, of_arrays = next(whole.epoch(0))

    plan = fitting.StagePlan(
        name="head",
        model=model,
        train_batches=batches,
        val_batches=None,
        num_epochs=num_epochs,
        optimizer=keras.optimizers.AdamW,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        is_balanced=False,
    )
    ways = {
        "bare": bare,
        "ours": lambda: list(fitting._train_epochs(plan, range(num_epochs))),
        "fit": lambda: by_fit.fit(arrays, of_arrays, batch_size=config.batch_size, epochs=num_epochs, verbose=0),
    }
    by_fit.fit(arrays, of_arrays, batch_size=config.batch_size, verbose=0)
    times = {way: [] for way in ways}
    for _ in range(arguments.rounds + 1):
        for way, function in ways.items():
            times[way].append(seconds(function)[0] / (length * num_epochs) * 1e3)
    bare_ms, ours_ms, fit_ms = (statistics.median(of_way[1:]) for of_way in times.values())
    print(
        f"{name:14} {members * len(dataset.spec.streams):7} {tracing:9.1f} s {bare_ms:8.1f} {ours_ms:8.1f} "
        f"{max(0, 1 - bare_ms / ours_ms):9.0%} {fit_ms:10.1f}",
        flush=True,
    )


WAITING = {
    "last 4 layers of mobilenet_v2": ("fine_tune", {"fine_tune": 4, "fine_tune_epochs": 2, "epochs": 1, "members": 1}),
    "all of mobilenet_v2": ("fine_tune", {"fine_tune": 999, "fine_tune_epochs": 2, "epochs": 1, "members": 1}),
    "small_cnn from scratch": ("scratch", {"backbone": "small_cnn", "epochs": 3}),
}


def spread(samples, most):
    """At most so many, from all labels."""
    return [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, most).astype(int))]


def measure_waiting(dataset, what):
    name, settings = WAITING[what]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work_dir:
        dataset = without_features(dataset, Path(folder))
        run = train(dataset, TrainConfig(**settings), work_dir=Path(work_dir))
    (stage,) = [stage for stage in run.stages if stage.name == name]
    last = stage.rows[-1]
    later = last["waiting_seconds"] / last["seconds"]
    print(
        f"{what:30} {stage.seconds:7.1f} s {stage.waiting_fraction:8.1%} {later:16.1%}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--epochs", type=int, default=50, help="of the course")
    parser.add_argument("--stock-steps", type=int, default=3, help="measured after the first")
    parser.add_argument("--rounds", type=int, default=5, help="of the step, its ways taking turns")
    parser.add_argument("--clips", type=int, default=32, help="of each split, for the waiting")
    parser.add_argument("--streams", help="some of those of the data set, separated by commas")
    parser.add_argument("--only", choices=("course", "step", "waiting"))
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset)
    if arguments.streams:
        dataset = dataset.with_streams(arguments.streams.split(","))
    print(f"Keras {keras.__version__} on {keras.backend.backend()}")
    if arguments.only in (None, "step"):
        print("\nhead           members  first step  bare ms  ours ms  not bare  fit ms")
        for name, members in (("chunks", 3), ("chunks", 1), ("lstm_plain", 1)):
            measure_step(dataset, arguments, name, members)
    if arguments.only in (None, "waiting"):
        some = [sample for split in ("train", "val") for sample in spread(dataset.split(split), arguments.clips)]
        print(f"\n{f'at most {arguments.clips} clips a split':30} {'time':>9} {'waiting':>8}  in the last epoch")
        for what in WAITING:
            measure_waiting(dataclasses.replace(dataset, samples=some), what)
    if arguments.only in (None, "course"):
        print()
        measure_course(dataset, arguments)


if __name__ == "__main__":
    main()
