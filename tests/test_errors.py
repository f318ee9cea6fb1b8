import pytest

from activity import errors


@pytest.mark.parametrize("name", ["VideoError", "DatasetError", "ModelFileError"])
def test_one_except_clause_catches_all_that_a_user_can_cause(name):
    with pytest.raises(errors.ActivityError, match="why"):
        raise getattr(errors, name)("why")
