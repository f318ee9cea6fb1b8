"""The whole path on videos that it draws itself: offline, in a minute or two, with classes that need time.

Some activities are others played backwards, so that no single frame and no set of frames tells them apart. Shuffling
the frames must bring their score down to chance; a model that cheats keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np

from activity.config import ClipSpec, TrainConfig, recipe_arguments
from activity.datasets.preprocessing import preprocess
from activity.datasets.synthetic import ORDER_PAIRS, draw_frames, write_videos
from activity.evaluation.evaluator import Evaluation, evaluate
from activity.evaluation.metrics import Scores
from activity.files import noted_results
from activity.models.saving import save_model
from activity.predictor.predictor import Predictor
from activity.reports.figures import samples_figure
from activity.reports.report import save_report, save_training_report
from activity.reports.style import save_figure
from activity.reports.timeline import save_timeline
from activity.training.trainer import train
from activity.video.writer import write_video

SPEC = ClipSpec(num_frames=12, height=64, width=64, streams=("rgb",))
CONFIG = TrainConfig(
    backbone="small_cnn", head="lstm_plain", units=64, members=1, dropout=0.3, epochs=30, learning_rate=2e-3
)
_NEW_PERFORMER = 900  # none of the training performers
_IN_A_ROW = ("walk_right", "sit_down", "stand_up", "wave", "jump")
_NUM_SHUFFLES = 5  # a single permutation may be lucky


def run_demo(out: Path, *, say: Callable[[str], object]) -> Evaluation:
    """Draw videos, then preprocess, train, evaluate, classify; returns the evaluation of the held-out performers.

    Args:
        out: folder for everything that is made.
        say: receives the lines to show.
    """
    say(f"1. Drawing videos in {out}/videos: a folder per activity, and a manifest.csv that names the performer")
    videos_dir = out / "videos"
    if not (videos_dir / "manifest.csv").is_file():
        write_videos(videos_dir)
    say(f"\n2. activity preprocess {videos_dir} --out {out}/dataset --num-frames 12 --size 64 --streams rgb")
    dataset = preprocess(videos_dir, out / "dataset", SPEC)
    say(dataset.as_text())
    save_figure(samples_figure(dataset), out / "samples.png")

    recipe = " ".join(recipe_arguments(CONFIG, SPEC.streams))
    say(f"\n3. activity train {out}/dataset --out {out}/model.keras {recipe}")
    run = train(dataset, CONFIG, work_dir=out / "model.training")
    save_model(run.classifier, out / "model.keras")
    save_training_report(run, out)
    say(run.as_text())

    say(f"\n4. activity evaluate {out}/model.keras {out}/dataset --out {out}/report")
    evaluation = evaluate(run.classifier, dataset)
    about = run.classifier.info.record.as_dict()
    with noted_results():
        save_report(evaluation, dataset, out / "report", about=about)
    say(evaluation.as_text())
    seeds = range(_NUM_SHUFFLES)
    shuffled = [evaluate(run.classifier, dataset, shuffle_seed=seed, baseline=False).scores for seed in seeds]
    without_order = np.mean([pair_accuracy(scores) for scores in shuffled])
    say(
        f"\norder pairs ({', '.join(f'{a} / {b}' for a, b in ORDER_PAIRS)}): {pair_accuracy(evaluation.scores):.3f} "
        f"correct; with the frames shuffled {without_order:.3f} (chance is 0.5)"
    )

    say(f"\n5. activity classify {out}/model.keras {out}/new_*.avi   (a performer it has never seen)")
    predictor = Predictor(run.classifier)
    for activity in ("sit_down", "stand_up"):
        path = out / f"new_{activity}.avi"
        write_video(path, draw_frames(activity, performer=_NEW_PERFORMER, take=0), frames_per_second=12)
        say(predictor.predict(path).as_text(top_k=3))

    say(f"\n6. activity classify {out}/model.keras {out}/long.avi --out {out}/timeline   (five activities in a row)")
    takes = (draw_frames(activity, performer=_NEW_PERFORMER, take=1, height=288, width=288) for activity in _IN_A_ROW)
    write_video(out / "long.avi", chain.from_iterable(takes), frames_per_second=12)
    prediction = predictor.predict(out / "long.avi", timeline=True)
    say(prediction.as_text(top_k=3))
    with noted_results():
        save_timeline(prediction, out / "timeline", "long")
    say(f"\nto look at, in {out}: report/report.html, samples.png, learning_curves.png, timeline/long.png")
    return evaluation


def pair_accuracy(scores: Scores) -> float:
    """Accuracy on the activities of `ORDER_PAIRS` when only the two of a pair compete: 0.5 is chance."""
    correct = []
    for pair in ORDER_PAIRS:
        ids = [list(scores.labels).index(label) for label in pair]
        rows = np.isin(scores.label_ids, ids)
        chosen = scores.probabilities[rows][:, ids].argmax(axis=1)  # (rows, 2) -> (rows,)
        correct += (np.asarray(ids)[chosen] == scores.label_ids[rows]).tolist()
    return float(np.mean(correct))
