"""
================================================================
Can a hidden Markov model find the vowels without being told?
================================================================

Give a two-state :class:`~sklseq.CategoricalHMM` English letters, and nothing else: no alphabet, no
dictionary, no label. Since vowels and consonants take turns, a chain that alternates explains the
order of the letters best, and its two states turn out to be the two kinds of letters (Cave and
Neuwirth did this in 1980; Markov himself counted vowels in *Eugene Onegin* in 1913). In the notes'
symbols: states :math:`s_t`, letters :math:`x_t`, and

.. math:: p(x_1..x_n) = \\sum_s \\prod_t p(s_t | s_{t-1})\\, p(x_t | s_t).
"""

import matplotlib.pyplot as plt
import numpy as np

from sklseq import CategoricalHMM

# %%
# The text is Lincoln's Gettysburg Address of 1863. Everything but letters is a space.
TEXT = """Four score and seven years ago our fathers brought forth on this continent, a new nation,
conceived in Liberty, and dedicated to the proposition that all men are created equal. Now we are
engaged in a great civil war, testing whether that nation, or any nation so conceived and so
dedicated, can long endure. We are met on a great battle-field of that war. We have come to dedicate
a portion of that field, as a final resting place for those who here gave their lives that that
nation might live. It is altogether fitting and proper that we should do this. But, in a larger
sense, we can not dedicate -- we can not consecrate -- we can not hallow -- this ground. The brave
men, living and dead, who struggled here, have consecrated it, far above our poor power to add or
detract. The world will little note, nor long remember what we say here, but it can never forget
what they did here. It is for us the living, rather, to be dedicated here to the unfinished work
which they who fought here have thus far so nobly advanced. It is rather for us to be here dedicated
to the great task remaining before us -- that from these honored dead we take increased devotion to
that cause for which they gave the last full measure of devotion -- that we here highly resolve that
these dead shall not have died in vain -- that this nation, under God, shall have a new birth of
freedom -- and that government of the people, by the people, for the people, shall not perish from
the earth."""
letters = " ".join("".join(c if c.isalpha() else " " for c in TEXT.lower()).split())
alphabet, codes = np.unique(list(letters), return_inverse=True)
X = codes.reshape(-1, 1)  # rows are steps: one letter each
hmm = CategoricalHMM(n_components=2, n_init=20, random_state=0).fit(X)
print(f"{len(X)} letters and spaces; EM took {hmm.n_iter_} iterations")

# %%
# For each letter, the probability that the state behind it was the first one. Spaces side with the
# vowels: both stand between consonants.
posterior = np.array([hmm.predict_proba(X)[codes == c, 0].mean() for c in range(len(alphabet))])
if posterior[list(alphabet).index("e")] < 0.5:  # which state is called 0 is chance
    posterior = 1 - posterior
order = np.argsort(-posterior)
names = np.where(alphabet == " ", "␣", alphabet)

fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
vowel = np.isin(alphabet[order], list("aeiou"))
bars = ax.bar(names[order], posterior[order], color=np.where(vowel, "#30638e", "#d9c8ae"))
for bar, dark in zip(bars, vowel):
    bar.set(edgecolor="0.3", hatch="" if dark else "..")
ax.axhline(0.5, color="0.3", linewidth=0.8)
ax.set(ylabel="probability of the\n'vowel' state", xlabel="letter (␣: a space)", ylim=(0, 1))
ax.legend([bars[0], bars[-1]], ["a, e, i, o, u", "all else"], frameon=False)
ax.margins(x=0.01)
plt.show()

# %%
# The transition matrix says how regularly they take turns.
print("stays in the state:", hmm.transmat_.diagonal().round(2))
