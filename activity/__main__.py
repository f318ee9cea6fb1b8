"""`python -m activity` is the same as `activity`."""

from activity.cli.main import run

if __name__ == "__main__":
    run()
