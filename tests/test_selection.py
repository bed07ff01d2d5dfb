"""Conclusions from scores: intervals, looks, who is dropped, and who is likely to be good."""

import itertools
import warnings

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_tricks import InputError, Space, Tricks
from lightning_tricks.selection.crossed import crossed_interval, seeds_to_tell
from lightning_tricks.selection.evidence import shrunk
from lightning_tricks.selection.halving import Halving
from lightning_tricks.selection.intervals import Interval, difference, mean_interval
from lightning_tricks.selection.looks import ERROR, error_of, levels, looks_up_to
from lightning_tricks.selection.result import Gain, simplicity
from lightning_tricks.selection.terms import Terms

numbers = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=9)


@given(numbers)
def test_an_interval_is_that_of_student(values):
    found = mean_interval(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns if all values are equal
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    if np.std(values) > 0:
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    assert found.low <= found.mean <= found.high


def test_of_one_value_nothing_is_said():
    assert mean_interval([0.5]) == Interval(0.5, None, None)
    assert str(mean_interval([0.5])) == "0.5000"
    assert not mean_interval([0.5]).excludes_zero


@given(numbers, st.floats(0.01, 5))
def test_pairs_tell_apart_what_the_spread_over_seeds_hides(values, gain):
    better = [value + gain for value in values]
    assert difference(better, values).mean == pytest.approx(gain, rel=1e-6)


# Seeds and samples at once.


def crossed(generator, seeds, blocks, of_seeds, of_samples, noise):
    """Draw scores whose true mean is zero."""
    return (
        generator.normal(0, of_seeds, (seeds, 1))
        + generator.normal(0, of_samples, (1, blocks))
        + generator.normal(0, noise, (seeds, blocks))
    )


@given(numbers)
def test_without_single_samples_the_interval_is_over_seeds(values):
    found, expected = crossed_interval(np.array(values)[:, None]), mean_interval(values)
    if np.std(values) > 1e-6:
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_of_one_model_the_interval_is_over_samples():
    values = np.random.default_rng(0).normal(size=40)
    expected = mean_interval(values.tolist())
    found = crossed_interval(values[None])
    assert (found.mean, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )


@pytest.mark.parametrize(
    ("of_seeds", "of_samples", "noise"), [(1, 0, 2), (0.2, 5, 5), (0.5, 3, 5), (0, 5, 1), (1, 5, 0)]
)
@pytest.mark.parametrize("seeds", [5, 16])
def test_the_interval_holds_the_truth_whatever_the_noise_is_of(seeds, of_seeds, of_samples, noise):
    """In 600 draws, a nominal 95% must hold in 91% to 98.5%, which allows for small samples."""
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(600):
        found = crossed_interval(crossed(generator, seeds, 60, of_seeds, of_samples, noise))
        held += found.low <= 0 <= found.high
    assert 0.91 <= held / 600 <= 0.985


def test_an_interval_over_seeds_alone_misses_what_all_seeds_share():
    """Why samples are included: on one set of samples, all seeds are wrong together."""
    generator = np.random.default_rng(2)
    draws = [crossed(generator, 5, 60, 0.3, 6, 5) for _ in range(300)]
    alone = sum(not mean_interval(draw.mean(1).tolist()).excludes_zero for draw in draws)
    both = sum(not crossed_interval(draw).excludes_zero for draw in draws)
    assert alone < 0.75 * 300
    assert both > 0.9 * 300


def test_models_that_are_right_about_everything_have_a_score_without_bounds():
    assert str(crossed_interval(np.ones((5, 36)))) == "1.0000"


def test_as_many_seeds_as_are_said_confirm_a_gain_that_is_there():
    generator = np.random.default_rng(3)
    few = 0.8 + crossed(generator, 5, 60, 1.5, 1, 1)
    few += 0.8 - few.mean()  # the observed gain equals the true one
    needed = seeds_to_tell(few, 0.95)
    spread = few.mean(1).std(ddof=1)
    confirmed = sum(
        crossed_interval(0.8 + crossed(generator, needed, 60, spread, 1, 1)).low > 0 for _ in range(300)
    )
    assert 0.7 <= confirmed / 300 <= 0.95
    assert seeds_to_tell(few - 0.9, 0.95) is None  # there is no gain
    tiny = crossed(generator, 3, 1, 1, 0, 0)
    assert seeds_to_tell(tiny + 0.02 - tiny.mean(), 0.95) is None  # it would take thousands
    three = crossed(generator, 3, 1, 1, 0, 0)  # of so few, Student's quantile is far from the normal one
    three += 4 - three.mean()
    needed = seeds_to_tell(three, 0.99)
    spread = three.std(ddof=1)
    draws = 4 + generator.normal(size=(2000, needed)) * spread
    low = draws.mean(1) - stats.t.ppf(0.995, needed - 1) * stats.sem(draws, axis=1)
    assert 0.77 <= (low > 0).mean() <= 0.97  # a whole number of seeds overshoots
    fewer = draws[:, : needed - 1]
    low = fewer.mean(1) - stats.t.ppf(0.995, needed - 2) * stats.sem(fewer, axis=1)
    assert (low > 0).mean() < 0.83
    assert seeds_to_tell(few + crossed(generator, 1, 60, 0, 9, 0), 0.95) is None  # too few samples


@given(st.integers(2, 12), st.integers(1, 40), st.integers(0, 1000))
def test_other_samples_never_make_an_interval_narrower_than_the_seeds_alone(seeds, blocks, number):
    values = crossed(np.random.default_rng(number), seeds, blocks, 1.0, 2.0, 3.0)
    alone = mean_interval(list(values.mean(1)))
    assert crossed_interval(values).half_width >= alone.half_width * (1 - 1e-9)


def test_a_gain_that_hardly_varies_needs_few_seeds():
    assert seeds_to_tell(np.array([[9.999], [10.001]]), 0.95) == 2


# Looks.


@given(st.integers(3, 12), st.integers(0, 200))
def test_looks_begin_with_the_fewest_seeds_and_end_with_the_most(first, most):
    looks = looks_up_to(first, most)
    assert looks == sorted(set(looks))
    assert looks[-1] == max(first, most)
    assert looks[0] == first or looks == [most]
    assert len(looks) == 1 or all(other >= 1.5 * one for one, other in itertools.pairwise(looks))


def test_all_verdicts_of_a_study_together_keep_to_the_error():
    assert error_of(0) > 0.7 * ERROR
    assert sum(error_of(number) for number in range(100)) == pytest.approx(ERROR)


@pytest.mark.parametrize("looks", [[5], [5, 13], [5, 10, 20, 40]])
@pytest.mark.parametrize("error", [0.05, 0.0375, 0.005])
def test_the_error_over_all_looks_is_the_one_that_is_asked_for(looks, error):
    """If you stop at the first interval that excludes zero, you are wrong no more often."""
    generator = np.random.default_rng(4)  # not the generator that found the levels
    draws = generator.normal(size=(20_000, looks[-1]))
    wrong = np.zeros(len(draws), dtype=bool)
    wanted = levels(looks, error)
    for look, level in zip(looks, wanted, strict=True):
        some = draws[:, :look]
        half = stats.t.ppf((1 + level) / 2, look - 1) * stats.sem(some, axis=1)
        wrong |= np.abs(some.mean(1)) > half
    assert wrong.mean() == pytest.approx(error, rel=0.2)
    assert wanted == sorted(wanted, reverse=True)  # early looks get little of the error
    assert wanted[-1] >= 1 - 1.05 * error


def test_a_tiny_error_is_shared_out_without_simulation():
    wanted = levels([5, 10, 20], 1e-4)
    assert sum(1 - level for level in wanted) == pytest.approx(1e-4)


def test_one_look_is_a_plain_interval():
    assert levels([7], 0.05) == pytest.approx([0.95], abs=0.002)


# Halving.


def halved(means, budget, noise, generator, maximize=True):
    sign = 1 if maximize else -1
    halving = Halving([f"trial {n}" for n in range(len(means))], budget, maximize)
    while seeds := halving.seeds():
        for _ in range(seeds):
            scores = sign * (np.array(means) + generator.normal(0, noise, len(means)))
            halving.add({n: scores[int(n.split()[1])] for n in halving.running})
        halving.drop()
    return halving


@given(st.integers(1, 12), st.integers(0, 200))
def test_halving_leaves_one_and_keeps_to_its_budget(count, budget):
    halving = halved([0.0] * count, budget, 1.0, np.random.default_rng(0))
    assert len(halving.running) == 1
    most, left, rounds = 0, count, max((count - 1).bit_length(), 1)
    while left > 1:
        most += max(left, budget // rounds)  # one seed each, or an equal share of the budget
        left = -(-left // 2)
    assert halving.spent == halving.most <= most
    assert all(halving.scores[n] for n in halving.names) or count == 1


@pytest.mark.parametrize("maximize", [True, False])
def test_halving_finds_the_best_more_often_than_equal_shares(maximize):
    """Six recipes; the best leads by the noise's std. Equal shares of 24 trainings are 4 seeds each."""
    generator = np.random.default_rng(5)
    means = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    found = sum(halved(means, 24, 1.0, generator, maximize).best == "trial 0" for _ in range(500))
    equal = (np.array(means) + generator.normal(0, 0.5, (500, 6))).argmax(1)
    assert found / 500 >= (equal == 0).mean() - 0.05
    assert found > 300


def test_a_recipe_without_a_score_is_dropped_and_none_may_be_left():
    halving = Halving(["trial 1", "trial 2", "trial 3"], 12)
    assert halving.add({"trial 1": 1.0, "trial 2": 2.0}) == ["trial 3"]
    assert halving.best == "trial 2"
    assert halving.add({}) == ["trial 1", "trial 2"]
    assert halving.best is None
    assert halving.seeds() == 0
    assert Halving([], 12).best is None


# Evidence.


def recipes(count, seed=0):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = Space(Tricks)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space, [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_what_similar_recipes_scored_finds_better_ones_than_the_luckiest_scores(noise):
    """The optimizer decides and noise hides it, over 40 searches of 38 trials."""
    gains = []
    for seed in range(40):
        space, drawn = recipes(38, seed)
        generator = np.random.default_rng([seed, 7])
        worth = {kind: generator.normal() for kind in sorted({r.optimizer.kind for r in drawn})}
        truth = np.array([worth[r.optimizer.kind] for r in drawn])
        scores = truth + generator.normal(0, noise, len(drawn))
        by_score = truth[np.argsort(-scores)[:6]].mean()
        by_evidence = truth[np.argsort(-np.array(shrunk(drawn, scores, space, "max")))[:6]].mean()
        gains.append(by_evidence - by_score)
    assert np.mean(gains) > -stats.sem(gains)
    if noise == 1.0:
        assert np.mean(gains) > 2 * stats.sem(gains)


def test_evidence_turns_with_the_mode_and_takes_any_unit():
    space, drawn = recipes(20)
    scores = np.random.default_rng(0).normal(size=20)
    scores[3] = -1e9  # diverged
    found = shrunk(drawn, scores, space, "max")
    assert shrunk(drawn, -scores, space, "min") == pytest.approx(found)
    assert shrunk(drawn, 100 * scores + 7, space, "max") == pytest.approx(found)
    assert np.isfinite(found).all()


def test_evidence_of_few_or_equal_scores_is_the_score():
    space, drawn = recipes(3)
    assert shrunk(drawn[:2], [1.0, 2.0], space, "min") == [-1.0, -2.0]
    assert shrunk(drawn, [1.0, 1.0, 1.0], space, "max") == [1.0, 1.0, 1.0]


def test_the_same_recipe_twice_has_one_worth():
    space, drawn = recipes(12)
    twice = [*drawn, drawn[0]]
    found = shrunk(twice, [*np.random.default_rng(0).normal(size=12), 9.0], space, "max")
    spread = np.std(found)
    assert abs(found[0] - found[-1]) < spread + 1e-9


# Labels.


@pytest.mark.parametrize(
    ("bounds", "label"),
    [
        ((0.1, 0.3), "Confirmed gain"),
        ((-0.1, 0.3), "Not confirmed"),
        ((-0.3, 0.1), "No gain found"),
        ((-0.3, -0.1), "No gain found"),
        ((-0.01, 0.04), "No gain found"),  # any possible gain is below the margin
        ((None, None), "Not confirmed"),
    ],
)
def test_three_labels(bounds, label):
    mean = 0.1 if bounds[0] is None else sum(bounds) / 2
    gain = Gain(Interval(mean, *bounds), "test/accuracy", 5, 100, chose=False)
    assert gain.label(0.05) == label


def test_a_gain_says_what_its_interval_allows_for():
    held = Interval(0.01, 0.005, 0.015)
    gain = Gain(held, "accuracy", 8, 1800, chose=False)
    assert str(gain) == "+0.0100 ± 0.0050 accuracy"
    assert "8 fresh seeds and 1800 test samples that took no part in choosing" in gain.method
    assert "the interval is over seeds only" in Gain(held, "val_f1", 8, None, chose=True).method
    assert "These samples chose the recipe, too" in Gain(held, "val_f1", 8, 50, chose=True).method


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.1, 0.5, "0.3000 ± 0.2000"),
        (0.00002, 0.0054, "0.00271 ± 0.00269"),  # 0.0027 ± 0.0027 would not say that it excludes 0
        (-0.0054, -0.00002, "-0.00271 ± 0.00269"),
        (-0.00002, 0.0054, "0.0027 ± 0.0027"),
        (0.0, 0.0, "0.0000 ± 0.0000"),
        (110.0, 140.0, "125.00 ± 15.00"),
        (1200.0, 1300.0, "1250.0 ± 50.0"),
        (23000.0, 24000.0, "23500 ± 500"),
        (1e11, 1.2e11, "1.100e+11 ± 1.0e+10"),
    ],
)
def test_a_rounded_interval_shows_whether_it_excludes_zero(low, high, shown):
    assert str(Interval((low + high) / 2, low, high)) == shown


def test_simplicity_counts_the_stages_that_are_on():
    assert simplicity(Tricks.plain()) == 0
    assert simplicity(Tricks(normalization={"kind": "none"})) == simplicity(Tricks()) - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"finalists": -1},
        {"seeds": 2},
        {"seeds": 3.5},
        {"budget": -1},
        {"finalists": 0, "budget": 5},
        {"margin": 0},
        {"margin": float("nan")},
        {"seeds": True},
    ],
)
def test_terms_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=r"finalists|seeds|verdict_budget|budget|margin"):
        Terms(**wrong)
