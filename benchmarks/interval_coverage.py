"""Does an interval of a few seeds hold the truth as often as it says?

Scores are drawn by the model of `crossed_interval`: an effect of each seed, one of each block of samples
that all seeds share, and noise. For each level and number of seeds it prints how often the interval
holds the true mean, with Satterthwaite's degrees of freedom alone and as the package has it (never
narrower than Student's over the seeds), and the ratio of their median widths.

    python benchmarks/interval_coverage.py [--draws 4000]
"""

import argparse

import numpy as np
from scipy import stats

from lightning_tricks.selection.crossed import _freedom, _variances, crossed_interval

LEVELS, SEEDS, BLOCKS = (0.95, 0.99, 0.998), (3, 5, 8, 15), 100
SPREADS = (1.0, 3.0, 3.0), (1.0, 5.0, 10.0)
"""Standard deviations of the effect of a seed, of a block, and of the noise."""


def draw(generator: np.random.Generator, seeds: int, spreads: tuple[float, float, float]) -> np.ndarray:
    """Return scores of shape (seeds, blocks), whose true mean is 0."""
    shapes = (seeds, 1), (1, BLOCKS), (seeds, BLOCKS)
    return sum(
        spread * generator.standard_normal(shape) for spread, shape in zip(spreads, shapes, strict=True)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    generator = np.random.default_rng(0)
    print("level  seeds  spreads              Satterthwaite    ours   width")
    for level in LEVELS:
        for seeds in SEEDS:
            for spreads in SPREADS:
                widths, held = [], np.zeros(2)
                for _ in range(draws):
                    values = draw(generator, seeds, spreads)
                    parts = _variances(values)
                    quantile = stats.t.ppf((1 + level) / 2, _freedom(*parts, seeds, BLOCKS))
                    ours = crossed_interval(values, level)
                    widths.append((quantile * np.sqrt(sum(parts)), ours.half_width))
                    held += np.abs(values.mean()) <= np.array(widths[-1])
                one, other = np.median(widths, axis=0)
                shares = "  ".join(f"{share:13.1%}" for share in held / draws)
                print(f"{level:5.1%}  {seeds:5d}  {spreads!s:18}  {shares}  {other / one:5.2f}")


if __name__ == "__main__":
    main()
