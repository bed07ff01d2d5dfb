"""Measures: functions of outputs and targets."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor
from torchmetrics import Metric

from lightning_tricks.scores import Mode, without_split

_LESS = re.compile(
    r"loss(es)?(?![a-z])|error|incorrect|inaccura|dissimilar|deviance|perplexity|divergence|distance|"
    r"hinge|(?<![a-z])(err|l1|l2|mse|rmse|msle|rmsle|mae|rmae|mape|smape|medae|mdape|nll|ppl|bpc|bpb|"
    r"ce|bce|xent|kl|kld|wer|cer|mer|per|brier|"
    r"ece|eer|crps|fid|kid|lpips)(?![a-z])"
)
"""Words for a metric of which less is better."""
_MORE = re.compile(
    r"acc|score|auc|auroc|auprc|precision|recall|iou|dice|jaccard|sensitiv|specific|kappa|corr|likelihood|"
    r"reward|return|hit|top|success|similar|(?<![a-z])(f\d|fbeta|m?ap|r2|mcc|elbo|psnr|ssim|sdr|snr|bleu|"
    r"rouge|meteor|n?dcg|mrr|pearson|spearman|kendall|em)(?![a-z])"
)
"""Words for a metric of which more is better."""
_NEGATED = re.compile(
    r"(?<![a-z])(neg|negative|minus)[_ -]?(log|mean|median|root|max|elbo|brier|(r?mse|mae)(?![a-z]))"
)
"""Words that turn the rest of a name around, as in scikit-learn's `neg_log_loss`."""
_UNSAID = re.compile(r"(?<![a-z])(gap|std|var|variance|difference|diff|free)(?![a-z])|(?<![a-z0-9])1-")
"""Words that leave open whether less is better."""
Measure = Callable[[Tensor, Tensor], Tensor]
"""Function of outputs and targets. A `torchmetrics.Metric` is computed over a whole split."""


def mode_of(monitor: str, metrics: Mapping[str, Measure]) -> Mode | None:
    """Return whether less or more of a metric is better: by what torchmetrics says, else by its name.

    None if neither says so.
    """
    metric = metrics.get(without_split(monitor))
    if isinstance(metric, Metric) and metric.higher_is_better is not None:
        return "max" if metric.higher_is_better else "min"
    name = monitor.lower()
    less = _LESS.search(name) is not None
    if _UNSAID.search(name) or not (less or _MORE.search(name)):
        return None
    negated = _NEGATED.search(name) is not None
    return "min" if less != negated else "max"


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of correct outputs.

    Args:
        outputs: scores of shape (N, classes, …); the largest is the prediction. Or binary logits, of
            shape (N,) or (N, 1), or of the shape of targets of 0.0 and 1.0; above 0 means 1.
        targets: class numbers, of shape (N, …), or numbers of the outputs' shape. Numbers that are no
            class, such as the -100 or 255 of pixels without a label, do not count.
    """
    if outputs.dim() == 1 or outputs.shape[1] == 1 or targets.is_floating_point():
        return ((outputs > 0) == (targets > 0.5).view_as(outputs)).float().mean()
    known = (targets >= 0) & (targets < outputs.shape[1])
    return ((outputs.argmax(1) == targets) & known).sum() / known.sum().clamp(min=1)
