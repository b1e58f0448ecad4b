"""The charts' arithmetic."""

import pytest

from tracer_async.cli.charts import bars, columns, scale, step_of


def test_a_column_is_the_interval_until_the_chart_is_full_and_doubles_then() -> None:
    assert step_of(2.0, 100.0, 50) == 2.0
    assert step_of(2.0, 101.0, 50) == 4.0


def test_a_column_is_the_mean_of_its_points_and_a_gap_is_none() -> None:
    points = [(0.5, 1.0), (1.0, 4.0), (1.5, 6.0), (4.2, 9.0)]
    assert columns(points, 4.9, 1.0, 5) == [1.0, 5.0, None, None, 9.0]


def test_points_that_are_too_old_fall_off_on_the_left() -> None:
    assert columns([(0.5, 1.0), (4.2, 9.0)], 4.9, 1.0, 2) == [None, 9.0]


def test_bars_span_low_to_high_over_all_rows() -> None:
    assert bars([0.0, 7.5, 15.0, None], 0.0, 15.0, 2) == [" ▁█ ", "▁██ "]


def test_a_flat_line_is_drawn_in_the_middle() -> None:
    assert bars([5.0], 5.0, 5.0, 1) == ["▄"]


def test_plain_bars_are_ascii() -> None:
    assert "".join(bars([0.0, 1.0, 2.0], 0.0, 2.0, 3, plain=True)).isascii()


@pytest.mark.parametrize(
    ("values", "least", "ends"),
    [
        ([12.0, 12.5, 13.0], 0.2, (12.0, 13.0)),
        ([12.0, 12.125], 0.25, (11.9375, 12.1875)),
        ([0.0, 0.0], 10.0, (0.0, 10.0)),
        ([3.0], 10.0, (0.0, 10.0)),
        ([], 10.0, (0.0, 10.0)),
    ],
)
def test_a_scale_goes_from_the_lowest_to_the_highest_value_but_is_not_too_short_or_below_0(
    values: list[float], least: float, ends: tuple[float, float]
) -> None:
    assert scale(values, least) == ends
