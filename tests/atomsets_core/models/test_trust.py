"""Intervals hold what they promise on data they have not seen, and the domain says where they can't."""

from __future__ import annotations

import numpy as np
import pytest

from atomsets_core.models.trust import Calibrator, calibrate, crossed_coverage, domain_and_distances, fit_domain


def heteroscedastic(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Residuals whose spread is known up to a factor 3 and a shared noise of 0.2."""
    random = np.random.default_rng(seed)
    spread = random.gamma(2.0, 0.3, n)
    return random.normal(size=n) * np.sqrt(0.2**2 + (3 * spread) ** 2), spread


@pytest.mark.parametrize("coverage", [0.5, 0.68, 0.8, 0.9, 0.95])
def test_the_promised_share_of_new_values_falls_inside(coverage: int):
    shares = []
    for seed in range(10):
        calibrator = calibrate(*heteroscedastic(500, seed), coverage)
        residual, spread = heteroscedastic(4000, 1000 + seed)
        shares.append(np.mean(np.abs(residual) <= calibrator.half_width(spread)))
    # standard error of the mean of ten calibrations on 500 rows: below 0.5 / sqrt(5000) = 0.007
    assert np.mean(shares) == pytest.approx(coverage, abs=0.02)


def test_it_holds_for_wide_and_narrow_alike_when_the_spread_tells_them_apart():
    calibrator = calibrate(*heteroscedastic(3000, 0), 0.9)
    residual, spread = heteroscedastic(20000, 1)
    inside = np.abs(residual) <= calibrator.half_width(spread)
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
        part = (spread >= np.quantile(spread, low)) & (spread <= np.quantile(spread, high))
        assert inside[part].mean() == pytest.approx(0.9, abs=0.03)


def test_it_holds_where_the_spread_says_nothing_and_the_noise_is_not_gaussian():
    random = np.random.default_rng(0)
    draw = lambda n: (random.standard_t(3, n), random.random(n))  # noqa: E731
    calibrator = calibrate(*draw(2000), 0.9)
    residual, spread = draw(20000)
    assert np.mean(np.abs(residual) <= calibrator.half_width(spread)) == pytest.approx(0.9, abs=0.02)


def test_the_noise_that_made_the_data_is_found():
    calibrator = calibrate(*heteroscedastic(20000, 0), 0.9)
    assert calibrator.floor == pytest.approx(0.2, rel=0.2)
    assert calibrator.scale == pytest.approx(3, rel=0.05)
    assert calibrator.quantile == pytest.approx(1.645, abs=0.05)


def test_the_unit_of_the_target_plays_no_part():
    residual, spread = heteroscedastic(300, 0)
    one, thousand = calibrate(residual, spread, 0.9), calibrate(1000 * residual, 1000 * spread, 0.9)
    np.testing.assert_allclose(1000 * one.half_width(spread), thousand.half_width(1000 * spread), rtol=1e-3)


def test_standard_deviation_and_half_width_by_hand():
    calibrator = Calibrator(floor=3.0, scale=2.0, reach=3.0, quantile=1.5, coverage=0.9)
    spread = np.array([0.0, 2.0])
    np.testing.assert_allclose(calibrator.std(spread), [3, 5])
    np.testing.assert_allclose(calibrator.half_width(spread), [4.5, 7.5])
    # 3^2 + 4^2 + (3 x 2^2)^2 = 13^2
    np.testing.assert_allclose(calibrator.std(spread, np.array([0.0, 2.0])), [3, 13])
    np.testing.assert_allclose(calibrator.half_width(spread, np.array([0.0, 2.0])), [4.5, 19.5])


def remote(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals that grow with the square of the distance to the training data, which the spread doesn't show."""
    random = np.random.default_rng(seed)
    remoteness = random.uniform(0, 1.5, n)
    return random.normal(size=n) * np.sqrt(0.1**2 + remoteness**4), np.full(n, 0.1), remoteness


def test_intervals_widen_with_the_distance_where_the_errors_do():
    residual, spread, remoteness = remote(4000, 0)
    calibrator = calibrate(residual, spread, 0.9, remoteness)
    assert calibrator.reach == pytest.approx(1, rel=0.1)
    residual, spread, remoteness = remote(20000, 1)
    blind = calibrate(*remote(4000, 0)[:2], 0.9)
    for low, high in ((0, 0.5), (0.5, 1), (1, 1.5)):
        part = (remoteness >= low) & (remoteness < high)
        inside = np.abs(residual) <= calibrator.half_width(spread, remoteness)
        assert inside[part].mean() == pytest.approx(0.9, abs=0.03)
    # without the distance the far ones fall out
    assert np.mean(np.abs(residual[part]) <= blind.half_width(spread[part])) < 0.85
    fold = np.arange(20000) % 5
    assert crossed_coverage(residual, spread, fold, 0.9, remoteness) == pytest.approx(0.9, abs=0.01)


def test_without_distances_they_play_no_part():
    assert calibrate(*heteroscedastic(100, 0)).reach == 0


@pytest.mark.parametrize(("coverage", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_the_rows_needed_are_named_and_suffice(coverage: float, needed: int):
    random = np.random.default_rng(0)
    calibrate(random.normal(size=needed), np.ones(needed), coverage)
    with pytest.raises(ValueError, match=f"{needed - 1} held-out rows are too few .* {needed} are needed"):
        calibrate(random.normal(size=needed - 1), np.ones(needed - 1), coverage)


def test_with_just_enough_rows_the_worst_of_them_is_inside():
    residual = np.array([1.0, -2, 3, -4, 5, -6, 7, -8, 9])
    assert calibrate(residual, np.zeros(9), 0.9).half_width(np.zeros(1))[0] == pytest.approx(9)
    assert calibrate(residual, np.zeros(9), 0.5).half_width(np.zeros(1))[0] == pytest.approx(5)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 90, float("nan")])
def test_a_coverage_is_a_share(coverage: float):
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        calibrate(np.ones(100), np.ones(100), coverage)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="3 residuals and 4 spreads"):
        calibrate(np.ones(3), np.ones(4))


def test_perfect_predictions_give_intervals_of_no_width():
    assert calibrate(np.zeros(50), np.zeros(50)).half_width(np.ones(1))[0] == pytest.approx(0)


def test_crossed_coverage_is_near_the_promise_and_sees_a_fold_that_is_worse():
    residual, spread = heteroscedastic(2000, 0)
    fold = np.arange(2000) % 5
    assert crossed_coverage(residual, spread, fold, 0.9) == pytest.approx(0.9, abs=0.02)
    residual[fold == 0] *= 100
    # the bad fold is measured with intervals from the good ones
    assert crossed_coverage(residual, spread, fold, 0.7) < 0.85
    inside_bad = crossed_coverage(residual[fold < 2], spread[fold < 2], fold[fold < 2], 0.9)
    assert inside_bad < 0.6


def cloud(n: int = 300, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 6)) @ random.normal(size=(6, 40)) + random.normal(scale=0.05, size=(n, 40))


def test_training_like_points_are_inside_and_far_ones_outside():
    points = cloud(600)
    domain = fit_domain(points[:300], share=0.95)
    assert np.mean(domain.distance(points[300:]) <= domain.threshold) == pytest.approx(0.95, abs=0.05)
    assert (domain.distance(points[300:] + 20) > domain.threshold).all()
    assert (domain.distance(points[300:] * 10) > domain.threshold).mean() > 0.95


def test_the_share_of_training_points_inside_is_the_one_asked_for():
    for share in (0.8, 0.95):
        domain = fit_domain(cloud(), share=share)
        assert np.mean(domain.distance_within() <= domain.threshold) == pytest.approx(share, abs=0.005)


def test_distances_to_a_sample_of_the_references_flag_alike(monkeypatch):
    random = np.random.default_rng(0)
    points = (random.normal(size=(3000, 6)) ** 3).astype(np.float32)
    new = (random.normal(size=(2000, 6)) ** 3).astype(np.float32)
    exact, own = domain_and_distances(points)
    monkeypatch.setattr("atomsets_core.models.trust.REFERENCES", 1000)
    sampled, own_sampled = domain_and_distances(points)
    assert len(exact.reference) == len(own) == len(own_sampled) == 3000
    assert len(sampled.reference) == 1000
    # Farther from a third of the points than from all of them, and so is the threshold.
    assert (own_sampled >= own - 1e-4).all()
    assert np.mean(own_sampled <= sampled.threshold) == pytest.approx(0.95, abs=0.002)
    flags = [domain.distance(new) <= domain.threshold for domain in (exact, sampled)]
    assert flags[1].mean() == pytest.approx(0.95, abs=0.02)
    assert (flags[0] == flags[1]).mean() > 0.97


def test_distance_within_leaves_the_point_itself_out():
    points = cloud()
    domain = fit_domain(points)
    assert domain.distance_within().min() > 0
    # seen as a new point, each has itself among its five nearest, at distance 0
    assert (domain.distance(points) < domain.distance_within()).all()
    others = fit_domain(points)
    expected = np.sort(np.linalg.norm(others.reference[7] - np.delete(others.reference, 7, 0), axis=1))[:5].mean()
    assert domain.distance_within()[7] == pytest.approx(expected, rel=1e-4)


def test_distances_do_not_depend_on_units_origin_or_the_order_of_rows_and_columns():
    points, new = cloud(), cloud(50, 1)
    before = fit_domain(points).distance(new)
    random = np.random.default_rng(2)
    unit, origin = random.uniform(0.5, 50, 40), random.normal(size=40)
    np.testing.assert_allclose(fit_domain(points * unit + origin).distance(new * unit + origin), before, rtol=1e-3)
    rows, columns = random.permutation(300), random.permutation(40)
    np.testing.assert_allclose(fit_domain(points[rows][:, columns]).distance(new[:, columns]), before, rtol=1e-3)
    np.testing.assert_allclose(fit_domain(points).distance(new[::-1])[::-1], before, rtol=1e-6)


def test_columns_that_never_change_make_no_nan():
    points = np.concatenate([cloud(), np.full((300, 3), 7.0)], axis=1)
    domain = fit_domain(points)
    assert np.isfinite(domain.distance(points)).all()


def test_few_structures():
    with pytest.raises(ValueError, match="2 structures are too few"):
        fit_domain(cloud(2))
    domain = fit_domain(cloud(3))
    assert domain.neighbours == 2
    assert len(domain.distance(cloud(10))) == 10
    assert domain.distance(np.empty((0, 40))).shape == (0,)


def test_repeats_of_a_crystal_count_once_and_the_threshold_stays_that_of_distinct_ones():
    points = cloud(60)
    once = fit_domain(points)
    often = fit_domain(np.repeat(points, 8, axis=0), groups=np.repeat(np.arange(60), 8))
    # the mean and deviation of the columns are the same, so are the distances
    assert often.threshold == pytest.approx(once.threshold, rel=1e-3)
    np.testing.assert_allclose(often.distance(cloud(20, 3)), once.distance(cloud(20, 3)), rtol=1e-3)
    # also where repeats differ by a little, as relaxed cells do, and belong to one formula
    noisy = np.repeat(points, 8, axis=0) + np.random.default_rng(0).normal(scale=1e-2, size=(480, 40))
    # (the five nearest may all be of the nearest crystal, so it is a little less)
    assert 0.7 * once.threshold < fit_domain(noisy, groups=np.repeat(np.arange(60), 8)).threshold <= once.threshold


def test_rows_of_a_group_are_measured_to_other_groups():
    points = np.concatenate([cloud(40), cloud(40) + 1e-3])
    group = np.tile(np.arange(40), 2)
    domain, own = domain_and_distances(points, groups=group)
    gaps = np.linalg.norm(domain.reference[0] - domain.reference, axis=1)
    others = np.sort(gaps[group != 0])[:5].mean()
    assert own[0] == pytest.approx(others, rel=1e-4)
    assert domain_and_distances(points)[1][0] < 0.9 * others


def test_a_single_crystal_many_times_has_itself_inside_and_all_else_outside():
    point = cloud(1)
    domain = fit_domain(np.repeat(point, 12, axis=0))
    inside = domain.remoteness(domain.distance(np.concatenate([point, point + 1.0])))
    assert inside.tolist() == [0.0, np.inf]


def test_far_away_a_model_says_what_it_knew_before_it_saw_the_structure():
    calibrator = Calibrator(1.0, 1.0, 3.0, 1.6, 0.9, centre=10.0, limit=4.0)
    remoteness, mean = np.array([0.0, 1.0, 3.0, 50.0, np.inf]), np.full(5, 100.0)
    believed = calibrator.believed(mean, remoteness)
    assert believed[:2].tolist() == [100.0, 100.0]
    assert 10.0 < believed[2] < 30.0
    assert believed[3:] == pytest.approx(10.0)
    std = calibrator.std(np.full(5, 2.0), remoteness)
    # sqrt(1 + 4 + 0) inside; never more than the deviation of the training values, and that far away
    assert std[0] == pytest.approx(np.sqrt(5))
    assert (np.diff(std) >= 0).all()
    assert std[2:] == pytest.approx(4.0, rel=0.02)
    assert std.max() <= 4.0


def test_models_saved_without_a_centre_fade_nowhere():
    calibrator = Calibrator(1.0, 1.0, 0.0, 1.6, 0.9)
    far = np.array([0.0, 9.0])
    assert calibrator.believed(np.array([5.0, 5.0]), far).tolist() == [5.0, 5.0]
    assert calibrator.std(np.zeros(2), far).tolist() == [1.0, 1.0]
