"""Numbers that a description may have."""

import pytest

from activity.datasets.annotations.records import positive


@pytest.mark.parametrize(
    "value, number",
    [
        ("25.000", 25.0),
        (29.97, 29.97),
        (10, 10.0),
        *((x, None) for x in ("NA", "", None, 0, -1, "nan", "inf", [1], 10**400)),
    ],
)
def test_what_is_no_number_above_0_is_not_known(value, number):
    assert positive(value) == number
