r"""
======================================================
Does one long series have hidden states, and how many?
======================================================

Earthquakes of magnitude 7 and more were counted each year from 1900 to 2006 (Zucchini and
MacDonald 2009). The variance is two and a half times the mean, so no single Poisson distribution
fits; a hidden state per year, with its own rate :math:`\lambda_s`, does.

There is one sequence here, so whole sequences cannot be held out. ``TimeSeriesSplit`` cuts it into
a past and a future, and ``continues=True`` starts the future from the state where the past ended;
without it every block would begin again from the start distribution.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from sklseq import PoissonHMM
from sklseq.datasets import load_earthquakes

earthquakes = load_earthquakes()
X, years = earthquakes.data, earthquakes.years

# %%
# Three answers to "how many?": the score of the future, in nats per year (higher is better), and
# AIC and BIC on all years (lower is better).

search = GridSearchCV(
    PoissonHMM(continues=True, max_iter=1000, random_state=0),
    {"n_components": [1, 2, 3, 4]},
    cv=TimeSeriesSplit(6, test_size=10),
).fit(X)

print("states   score of the future      AIC      BIC")
for n_states, mean in zip(range(1, 5), search.cv_results_["mean_test_score"]):
    model = PoissonHMM(n_states, max_iter=1000, n_init=10, random_state=0).fit(X)
    print(f"{n_states:6d}   {mean:19.3f}   {model.aic(X):6.1f}   {model.bic(X):6.1f}")

# %%
# Decode with three states, as the book does.

model = PoissonHMM(3, max_iter=1000, n_init=10, random_state=0).fit(X)
order = np.argsort(model.rates_[:, 0])
rates = model.rates_[order, 0]
path = np.argsort(order)[model.predict(X)]
ahead = model.forecast(X, 10)

print("\nstate   earthquakes a year   years")
for state, rate in enumerate(rates):
    print(f"{state:5d}   {rate:18.1f}   {np.sum(path == state):5d}")
print(f"\nexpected in 2007: {ahead.means[0, 0]:.1f}, in 2016: {ahead.means[-1, 0]:.1f}")

figure, axis = plt.subplots(figsize=(8, 3.5), layout="constrained")
axis.bar(years, X[:, 0], color="0.8", label="counted")
axis.step(years, rates[path], where="mid", color="C3", label="rate of the decoded state")
axis.plot(2007 + np.arange(10), ahead.means[:, 0], "C0--", label="forecast")
axis.set(title="Earthquakes of magnitude 7 and more", xlabel="year", ylabel="number in the year")
axis.legend(loc="upper right")
figure.savefig("earthquakes.png", dpi=120)
print("The picture is in earthquakes.png.")
