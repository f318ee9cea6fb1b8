import json
import re
import shlex


def test_info_tells_of_the_model_and_the_command_that_made_it(run, folder, one_line):
    model = folder / "model.keras"
    status, out, err = run("info", model)
    command = shlex.join(["activity", "train", str(folder / "dataset"), "--out", str(model), "--backbone", "small_cnn"])
    assert (
        (status, err) == (0, "")
        and out.startswith(f"{model}\n")
        and re.search(rf"^  command +{re.escape(command)} --units 8", out, re.MULTILINE)
    )
    about = json.loads(run("info", model, "--json")[1])
    assert about["command"].startswith(command) and about["command_recorded"] and about["num_videos"]["train"] > 0
    assert run("info", model, "--markdown")[1].startswith("# model.keras\n\nA video classifier for 2 activities")
    assert run("info", model, "--markdown", "--json")[0] == 2
    status, out, err = run("info", folder / "none.keras")
    assert (status, out) == (1, "") and "no such model file" in one_line(err)
