"""The second half of a study: is any recipe known to be better than what the user has?

That is the incumbent: a LightningModule as it is, or else the baseline. It stays the champion unless
another recipe is better over seeds, and on samples, that took no part in choosing that recipe.
"""

from collections.abc import Mapping

from optuna.trial import FrozenTrial, TrialState

from lightning_tricks.errors import one_line
from lightning_tricks.markdown import escaped
from lightning_tricks.search.archive import CHAMPION as ALIAS
from lightning_tricks.search.keys import CHAMPION, ENSEMBLE, ENTRY, VERDICT, kept
from lightning_tricks.search.outcomes import Champion, aliases_of, is_repeat
from lightning_tricks.search.study_state import remember_champion, verdict_of
from lightning_tricks.selection.result import BASELINE, WORDS, Gain, Label, Verdict
from lightning_tricks.selection.terms import FEWEST, Terms
from lightning_tricks.study.session import Session, beside
from lightning_tricks.verdict import models
from lightning_tricks.verdict.allowance import Allowance, allowance
from lightning_tricks.verdict.comparison import Comparison
from lightning_tricks.verdict.finalists import by_name, finalists, full_trainings
from lightning_tricks.verdict.reruns import Reruns, TimeUp, recipe_of


def judge(search: Session, terms: Terms, *, ablates: bool = False) -> Verdict:
    """Run the verdict of a search that has its trials; register the champion and its ensemble.

    Args:
        search: whose session is still open.
        terms: what the user asks for.
        ablates: whether an ablation follows, for which some of a study's budget is kept.

    Raises:
        KeyboardInterrupt: if the user asked for it; the same command goes on.
    """
    trials = finalists(search, terms.finalists)
    if BASELINE not in trials:
        raise TimeUp  # before the baseline ended
    before = verdict_of(search.study)
    same = before is not None and before.names == tuple(trials) and before.covers(terms)
    if before is not None and same and _is_registered(search):
        return before  # the test split is not looked at again
    looks = 0 if before is None else before.before + (not same)
    if before is not None and same:
        return _Judgement(search, trials, before.terms, looks, before).run()
    return _Judgement(search, trials, terms, looks, ablates=ablates).run()


def again(search: Session) -> Verdict | None:
    """Return the verdict that a study holds; register its champion again if MLflow lost it.

    Nothing is trained, and the test split is not looked at: Optuna holds all of that.
    """
    before = verdict_of(search.study)
    if before is None or _is_registered(search):
        return before
    known = by_name(search)
    trials = {name: known[name] for name in before.names}
    return _Judgement(search, trials, before.terms, before.before, before).run()


def _is_registered(search: Session) -> bool:
    """Tell whether MLflow has the champion that Optuna knows of."""
    known = search.study.user_attrs.get(CHAMPION)
    if known is None or known["alias"] != ALIAS or "ensemble" not in known:
        return False
    try:
        return search.archive.holds(aliases_of(known))
    except Exception:  # a server that went away: what it has is left as it is
        return True


class _Judgement:
    """One verdict, from the finalists to the registered champion.

    Args:
        search: of which the verdict is.
        trials: those whose recipes run again, by name.
        terms: what the user asks for.
        looks: number of verdicts that looked at the test split before.
        held: the verdict that this one repeats, if the search went on since.
        ablates: whether an ablation follows.
    """

    def __init__(
        self,
        search: Session,
        trials: Mapping[str, FrozenTrial],
        terms: Terms,
        looks: int,
        held: Verdict | None = None,
        *,
        ablates: bool = False,
    ) -> None:
        self.search, self.trials, self.terms, self.looks = search, trials, terms, looks
        self.searched = search.history.counted if held is None else held.searched
        self.recipes = {name: recipe_of(search, trial) for name, trial in trials.items()}
        self.held, self.ablates = held, ablates

    def run(self) -> Verdict:
        """Train what of the verdict was not trained yet, and register its champion."""
        search = self.search
        tried = sum(not is_repeat(t) and t.state != TrialState.FAIL for t in search.history)
        with beside(search, VERDICT) as own, Reruns(own) as reruns:
            comparison = Comparison(
                reruns, self.recipes, self.terms, self._allowance(own), tried, self.looks
            )
            others = sum(trial.user_attrs[ENTRY] not in self.recipes for trial in own.history)
            own.progress.start_stage("verdict", comparison.most_trainings + others, list(own.history))
            verdict = self._found(comparison)
            means = {f"{n}/test": r.test.mean for n, r in verdict.rows.items() if r.test}
            means |= {
                f"{n}/validation": r.validation.mean for n, r in verdict.rows.items() if r.validation
            }
            self._register(comparison, verdict)
            words = escaped(f"{verdict.headline()} {verdict.method}")
            own.archive.describe(words, scores=means, label=verdict.label)
            search.study.set_user_attr(kept(VERDICT), verdict.plain())
        return verdict

    def _allowance(self, own: Session) -> Allowance:
        """Return what the verdict may take: as much as the one that it repeats, if it repeats one."""
        if self.held is not None:
            return Allowance.counted(self.held.budget, self.held.choosing)
        usual = full_trainings(self.search)
        return allowance(own, self.recipes, self.terms, usual, ablates=self.ablates)

    def _found(self, comparison: Comparison) -> Verdict:
        """Choose the candidate, compare it with the incumbent, and name the champion."""
        candidate = comparison.choose()
        gain, margin = (None, 0.0) if candidate is None else comparison.compare(candidate)
        if candidate is None:
            comparison.train([comparison.incumbent], self.terms.seeds)
        label, why = self._label(comparison, candidate, gain, margin)
        incumbent = comparison.incumbent
        champion = candidate if candidate and label == "Confirmed gain" else incumbent
        others = [champion]
        if self.terms.prefer_simple and (simple := comparison.simpler(champion, margin)):
            why = (
                f"{simple.capitalize()} is simpler than {champion}, and not worse by more than the "
                f"margin of {margin:.4f} (one-sided 95%): it is the champion."
            )
            champion, others = simple, [champion, simple]
        comparison.train(["plain", BASELINE], FEWEST)
        together = dict.fromkeys([incumbent, *([candidate] if candidate else []), *others])
        rows = comparison.table(list(dict.fromkeys(["plain", BASELINE, *together])), list(together))
        comparison.own.archive.place(
            trial for name in comparison.reports for trial in comparison.trials(name)
        )
        return Verdict(
            label=label,
            champion=champion,
            trial=self.trials[champion].number,
            candidate=candidate,
            candidate_trial=None if candidate is None else self.trials[candidate].number,
            gain=gain,
            ensemble_gain=None if candidate is None else comparison.ensemble_gain(candidate),
            margin=margin,
            why=why,
            names=tuple(self.trials),
            terms=self.terms,
            budget=comparison.budget,
            choosing=comparison.halving.budget,
            spent=comparison.spent,
            rows=rows,
            searched=self.searched,
            before=self.looks,
        )

    def _label(
        self, comparison: Comparison, candidate: str | None, gain: Gain | None, margin: float
    ) -> tuple[Label, str]:
        """Return what was found of a gain, and why where no interval says it."""
        if gain is not None:
            return gain.label(margin), ""
        if candidate is None:
            return "No gain found", "No other recipe was trained to its end."
        other = comparison.incumbent
        whole, lost = len(comparison.trials(candidate)), len(comparison.trials(other))
        if whole == comparison.compared_seeds and not lost:
            have = WORDS[other]
            why = f"{have[0].upper()}{have[1:]} was trained to its end with none of {whole} seeds."
            return "Confirmed gain", why
        return "No gain found", (
            f"Of {comparison.compared_seeds} fresh seeds {candidate} was trained to its end with "
            f"{whole}, and {WORDS[other]} with {lost}."
        )

    def _register(self, comparison: Comparison, verdict: Verdict) -> None:
        """Register the model of the champion's median seed, and its models together as an ensemble."""
        own, name = comparison.own, verdict.champion
        trials = sorted(comparison.trials(name), key=lambda trial: trial.value or 0.0)
        archive, trained = own.archive, comparison.scores.trained
        if not trials or not archive.flush(60):
            return
        middle = trials[(len(trials) - 1) // 2]
        try:
            module, study_state = trained.restore(middle), trained.study_state
            what = f"{name.capitalize()}, trained again: the median of {len(trials)} fresh seeds."
            words = f"{what} {escaped(verdict.headline())}"
            recipe, number = comparison.recipes[name], middle.number
            found = models.register(own.task, {number: module}, recipe, archive, number, ALIAS)
            models.describe(found, self.search.study.study_name, recipe, study_state, words)
            run_id = archive.run_of(number)
            held = Champion(alias=ALIAS, trial=verdict.trial, run_id=run_id, version=found.version)
            remember_champion(self.search.study, held)
            of_seeds = comparison.trials(name, self.terms.seeds)
            members = {t.number: trained.restore(t) for t in of_seeds} if len(of_seeds) > 1 else {}
            ensemble = None
            if members:
                together = models.register(own.task, members, recipe, archive, number, ENSEMBLE)
                models.describe_together(together, len(members))
                ensemble = together.version
            remember_champion(self.search.study, {**held, "ensemble": ensemble})
        except Exception as error:  # of the export or MLflow: the study stands
            own.progress.warn(f"no champion was registered: {type(error).__name__}: {one_line(error)}")
            archive.whole = False
