import numpy as np
import pytest

from activity.apps.demo import _IN_A_ROW, pair_accuracy, run_demo
from activity.datasets.synthetic import ORDER_PAIRS
from activity.evaluation.metrics import Scores


def test_pair_accuracy_lets_only_the_two_of_a_pair_compete():
    labels = sorted({label for pair in ORDER_PAIRS for label in pair} | {"wave"})
    first, second = (labels.index(label) for label in ORDER_PAIRS[0])
    probabilities = np.zeros((3, len(labels)))
    probabilities[:, labels.index("wave")] = 0.7
    probabilities[0, [first, second]] = 0.2, 0.1
    probabilities[1, [first, second]] = 0.2, 0.1
    scores = Scores(probabilities, np.array([first, second, labels.index("wave")]), labels)
    assert pair_accuracy(scores) == 0.5


@pytest.mark.slow
def test_the_demo_learns_order(tmp_path):
    lines = []
    evaluation = run_demo(tmp_path, say=lines.append)
    text = "\n".join(map(str, lines))
    assert evaluation.scores.accuracy >= 0.95
    shuffled = float(text.split("with the frames shuffled ")[1].split()[0])
    assert pair_accuracy(evaluation.scores) >= 0.95
    assert 0.38 < shuffled < 0.62
    assert "new_sit_down.avi  sit_down" in text and "new_stand_up.avi  stand_up" in text
    segments = text.partition("long.avi  ")[2].splitlines()[1 : 1 + len(_IN_A_ROW)]
    assert [line.split()[-2] for line in segments] == list(_IN_A_ROW)
    for name in (
        "samples.png",
        "timeline/long.png",
        "learning_curves.png",
        "report/confusion.png",
        "report/mistakes.png",
        "model.keras",
    ):
        assert (tmp_path / name).stat().st_size > 5000
