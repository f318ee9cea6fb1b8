"""How well sentences are learned: of drawn films and stills with exact truth, and of real clips.

python tests/benchmarks/bench_sentences.py films [--films 2500] [--stills 900] [--size 112] [--seeds 3] [--out DIR]
python tests/benchmarks/bench_sentences.py stills [--stills 2500] [--size 224] [--components 64] [--seeds 3]
python tests/benchmarks/bench_sentences.py clips DATASET:FOLDS... [--seeds 3] [--out DIR]

- `films`: combinations of who, colour, what, where and direction that were never trained on: the fraction of sentences
  that is exactly right; the same where each is compared with the truth of another film; whether two events are in the
  right order where both are named; and how long training and searching take.
- `stills`: the same of stills alone.
- `clips`: the labels of Weizmann or tennis strokes as sentences, three a label, in folds as for `cross-validate`;
  scores over all clips, pooled over the folds, and the lead over the caption of the nearest training video, with its
  standard error over the groups.

Each training is written down in DIR/sentences.jsonl as it ends; the same command later goes on with what is missing.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from activity.config import ClipSpec, TrainConfig
from activity.datasets.dataset import load_dataset
from activity.datasets.preprocessing import preprocess
from activity.datasets.synthetic_captions import write_captioned_films
from activity.datasets.words import tokens_of
from activity.evaluation.captioning import CaptionEvaluation, evaluate_captions
from activity.evaluation.captions import score_captions
from activity.evaluation.metrics import Mean
from activity.model_selection.cross_validation import divide_folds
from activity.models.sentences import Sentence, SentenceWriter
from activity.runtimes.features import extract_features
from activity.training.captioning import train_captioner
from activity.training.preparation import backbone_of

DRAWN = {  # what is drawn by default: films, stills, and the side in pixels at which the model sees them
    "films": (2500, 900, 112),
    "stills": (0, 2500, 224),
}

WHAT = {  # label -> what somebody does, of the data sets by their labels
    "bend": ("bends down", "picks something up from the floor"),
    "jack": ("does jumping jacks", "jumps with arms and legs apart"),
    "jump": ("hops forward with both feet", "jumps across the place"),
    "pjump": ("jumps on the spot", "hops up and down in one place"),
    "run": ("runs by", "runs across the place"),
    "side": ("walks sideways", "steps to the side again and again"),
    "skip": ("hops across the place on one leg", "skips along"),
    "walk": ("walks by", "walks across the place"),
    "wave1": ("waves with one hand", "raises one arm and waves"),
    "wave2": ("waves with both hands", "raises both arms and waves"),
    "backhand": ("plays a backhand", "returns the ball with a backhand"),
    "b_slice": ("plays a backhand slice", "slices the ball with a backhand"),
    "b_volley": ("plays a backhand volley", "meets the ball at the net with a backhand"),
    "forehand": ("plays a forehand", "returns the ball with a forehand"),
    "f_volley": ("plays a forehand volley", "meets the ball at the net with a forehand"),
    "serve": ("serves", "opens the rally with a serve"),
    "smash": ("plays a smash", "smashes the ball from above"),
}


def captions_of(label):
    """Three sentences of a label."""
    first, second = WHAT[label]
    return f"somebody {first}", f"a person {second}", f"here a person {first}"


class Results:
    """Trainings that are done, in a file of JSON lines."""

    def __init__(self, folder):
        self.path = folder / "sentences.jsonl" if folder else None
        lines = self.path.read_text().splitlines() if self.path and self.path.is_file() else []
        self.done = {tuple(key): result for key, result in map(json.loads, lines)}

    def of(self, key, compute):
        """What was computed for a key, now or earlier."""
        if key not in self.done:
            self.done[key] = compute()
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([key, self.done[key]]) + "\n")
        return self.done[key]


# === Films and stills ===


def events_in_order(caption, truth):
    """Whether two events come in the order of the truth; `None` if the caption does not name both."""
    found, wanted = (" ".join(tokens_of(text)).partition(" then ") for text in (caption, truth))
    first, second = (event_of(wanted[0]), wanted[2])
    written = (event_of(found[0]), found[2])
    return None if sorted(written) != sorted((first, second)) else written == (first, second)


def event_of(part):
    """What happens in `a girl in a red coat walks to the left in the snow`, without who and where."""
    words = part.split(" coat ", 1)[-1].split()
    place = max(i for i, word in enumerate(words) if word in ("in", "on")) if {"in", "on"} & set(words) else len(words)
    return " ".join(words[:place])


def run_films(dataset, seed, epochs, components):
    """Train on all films and stills, and write about those of the test split."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work_dir:
        config = TrainConfig(task="describe", seed=seed, epochs=epochs, components=components)
        run = train_captioner(dataset, config, work_dir=work_dir)
    seconds = time.perf_counter() - start
    evaluation = evaluate_captions(run.model, dataset)
    samples = evaluation.samples
    stacks = extract_features(dataset, samples, run.model.backbone)
    searches = {}
    for num_beams in (1, 5):
        writer = SentenceWriter(run.model, num_beams=num_beams)
        writer.write_stacks(stacks[:2])
        start = time.perf_counter()
        writer.write_stacks(stacks)
        searches[num_beams] = time.perf_counter() - start
    return {
        "seconds": seconds,
        "searches": searches,
        "captions": [sentence.text for sentence in evaluation.sentences],
        "truth": [sample.captions[0] for sample in samples],
        "films": [sample.path.startswith("films") for sample in samples],
        "cider_d": evaluation.scores.cider_d,
        "baseline": evaluation.baseline.as_dict(),
        "num_trained": len(dataset.samples) - len(samples),
    }


def drawn(arguments, results):
    """Print a row for each seed, and their mean."""
    asked = (arguments.films, arguments.stills, arguments.size)
    num_films, num_stills, size = (x if y is None else y for x, y in zip(DRAWN[arguments.what], asked, strict=True))
    of_stills = {} if num_films else {"num_frames": 1, "streams": ("rgb",)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.out or Path(scratch)) / f"{num_films}-{num_stills}-{size}"
        if not (folder / "dataset" / "manifest.csv").is_file():
            write_captioned_films(folder / "videos", num_films=num_films, num_stills=num_stills)
            preprocess(folder / "videos", folder / "dataset", ClipSpec(height=size, width=size, **of_stills))
        dataset = load_dataset(folder / "dataset")
        rows = []
        for seed in range(arguments.seeds):
            recipe = arguments.epochs, arguments.components
            key = ("drawn", num_films, num_stills, size, *recipe, seed)
            result = results.of(key, partial(run_films, dataset, seed, *recipe))
            rows.append(row_of(result))
            print(json.dumps({"seed": seed, **rows[-1]}), flush=True)
    print(json.dumps({"mean": {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]}}))


def row_of(result):
    """The scores of a training on films."""
    is_film = np.asarray(result["films"])
    pairs = list(zip(result["captions"], result["truth"], strict=True))

    def exact(chosen, shift=0):
        captions, truth = ([pair[i] for pair, yes in zip(pairs, chosen, strict=True) if yes] for i in (0, 1))
        return score_captions(captions, [[text] for text in np.roll(truth, shift)]).exact

    of_films = {}
    if is_film.any():
        order = [events_in_order(*pair) for pair, yes in zip(pairs, is_film, strict=True) if yes]
        named = [right for right in order if right is not None]
        of_films = {
            "films_exact": round(exact(is_film), 3),
            "films_swapped": round(exact(is_film, shift=1), 3),
            "order_right": round(float(np.mean(named)), 3),
            "both_events_named": round(len(named) / len(order), 3),
        }
    searches = result["searches"]
    beams = (searches.get(key, searches.get(str(key))) for key in (5, 1))
    return {
        **of_films,
        "stills_exact": round(exact(~is_film), 3),
        "cider_d": round(result["cider_d"], 3),
        "baseline_cider_d": round(result["baseline"]["cider_d"], 3),
        "baseline_exact": round(result["baseline"]["exact"], 3),
        "train_seconds": round(result["seconds"], 1),
        "beams_5_to_greedy": round(float(np.divide(*beams)), 2),
    }


# === Clips ===


def run_fold(part, seed, backbone):
    """Train on all folds but one; what is written of that one."""
    with tempfile.TemporaryDirectory() as work_dir:
        config = TrainConfig(task="describe", seed=seed)
        run = train_captioner(part, config, work_dir=work_dir, backbone=backbone)
    evaluation = evaluate_captions(run.model, part)
    return {
        "captions": [sentence.text for sentence in evaluation.sentences],
        "baseline": evaluation.baseline_captions,
        "labels": [sample.label for sample in evaluation.samples],
        "groups": [sample.group for sample in evaluation.samples],
        "paths": [sample.path for sample in evaluation.samples],
    }


def clips(arguments, results):
    """Print the pooled scores of each data set."""
    for path, _, folds in (each.rpartition(":") for each in arguments.datasets):
        dataset = load_dataset(Path(path))
        samples = [dataclasses.replace(x, captions=captions_of(x.label)) for x in dataset.samples]
        dataset, backbone = dataclasses.replace(dataset, samples=samples), None
        rows = []
        for seed in range(arguments.seeds):
            found = []
            for fold, part in divide_folds(dataset, folds, seed=seed).items():
                backbone = backbone or backbone_of(part, TrainConfig(task="describe", weights="imagenet"))
                key = ("clips", Path(path).name, str(fold), seed)
                found.append(results.of(key, partial(run_fold, part, seed, backbone)))
            rows.append(pooled(found, {sample.path: sample for sample in samples}))
            print(Path(path).name, json.dumps({"seed": seed, **rows[-1]}), flush=True)
        mean = {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]}
        print(Path(path).name, json.dumps({"mean": mean}))


def pooled(found, samples):
    """Scores over all clips of all folds."""
    captions, baseline, paths, groups, labels = (
        [x for result in found for x in result[name]] for name in ("captions", "baseline", "paths", "groups", "labels")
    )
    sentences = [Sentence(tuple(text.split()), 0.0, np.zeros((0, 0))) for text in captions]
    evaluation = CaptionEvaluation([samples[path] for path in paths], sentences, baseline)
    scores, leads = evaluation.scores, evaluation.leads
    right = Mean.of(scores.exact_each, groups)
    return {
        "cider_d": round(scores.cider_d, 3),
        "baseline_cider_d": round(evaluation.baseline.cider_d, 3),
        "cider_d_lead": round(leads["cider_d"].value, 3),
        "cider_d_lead_error": round(leads["cider_d"].standard_error, 3),
        "exact": round(scores.exact, 3),
        "exact_error": round(right.standard_error, 3),
        "baseline_exact": round(evaluation.baseline.exact, 3),
        "exact_lead": round(leads["exact"].value, 3),
        "exact_lead_error": round(leads["exact"].standard_error, 3),
        "bleu_4": round(scores.bleu_4, 3),
        "rouge_l": round(scores.rouge_l, 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*DRAWN, "clips"))
    parser.add_argument("datasets", nargs="*", metavar="DATASET:FOLDS")
    parser.add_argument("--films", type=int)
    parser.add_argument("--stills", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    parser.add_argument("--components", type=int, default=TrainConfig.components, help="of films and stills")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.out)
    (drawn if arguments.what in DRAWN else clips)(arguments, results)


if __name__ == "__main__":
    main()
