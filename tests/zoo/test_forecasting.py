"""Can networks of pytorch_forecasting, with its time series data sets, be searched and loaded?"""

import numpy as np
import pandas as pd
import pytest
from packages import check_study

from lightning_tricks import ModuleTricks, Task

forecasting = pytest.importorskip("pytorch_forecasting")

pytestmark = [
    pytest.mark.zoo,
    # The package's modules have modules among their hyperparameters.
    pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`:UserWarning"),
]

STEPS, PAST, FUTURE = 30, 8, 4


def table():
    """Return four waves with noise."""
    rng = np.random.default_rng(0)
    time = np.arange(STEPS)
    waves = [
        pd.DataFrame(
            {
                "time": time,
                "series": str(number),
                "day": (time % 7).astype(str),
                "value": 5 + np.sin(time / 3 + number) + 0.1 * rng.standard_normal(STEPS),
            }
        )
        for number in range(4)
    ]
    return pd.concat(waves, ignore_index=True)


def data_sets():
    """Return the series up to a time, and the steps after it."""
    data = table()
    past = forecasting.TimeSeriesDataSet(
        data[data["time"] < STEPS - FUTURE],
        time_idx="time",
        target="value",
        group_ids=["series"],
        max_encoder_length=PAST,
        max_prediction_length=FUTURE,
        static_categoricals=["series"],
        time_varying_known_categoricals=["day"],
        time_varying_known_reals=["time"],
        time_varying_unknown_reals=["value"],
        target_normalizer=forecasting.GroupNormalizer(groups=["series"]),
        add_relative_time_idx=True,
        add_target_scales=True,
        add_encoder_length=True,
    )
    return past, forecasting.TimeSeriesDataSet.from_dataset(
        past, data, predict=True, stop_randomization=True
    )


def test_a_temporal_fusion_transformer_forecasts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    past, future = data_sets()
    train = past.to_dataloader(train=True, batch_size=16, num_workers=0)
    validation = future.to_dataloader(train=False, batch_size=4, num_workers=0)

    def make():
        return forecasting.TemporalFusionTransformer.from_dataset(
            past,
            learning_rate=1e-4,
            hidden_size=4,
            attention_head_size=1,
            hidden_continuous_size=4,
            dropout=0.1,
            loss=forecasting.QuantileLoss(),
            log_interval=-1,
        )

    task = Task(
        "forecast",
        (train, validation),
        backbone=lambda tricks: make(),
        tricks=ModuleTricks,
        epochs=1,
        monitor="val_loss",
        mode="min",
    )
    inputs, _ = next(iter(validation))
    check_study(task, make, lambda module: module(inputs)["prediction"], tmp_path)
