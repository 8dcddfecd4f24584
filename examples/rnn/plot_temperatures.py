"""
Text at three temperatures
==========================

:class:`~sklseq.rnn.CharRNNLanguageModel` learns the distribution of the next character; drawn from
at a low temperature it repeats what it is sure of, at a high one it takes risks.
"""

# %%
# A nursery rhyme is enough to see it. The text is one long stream: the state is carried on.
from sklseq.rnn import CharRNNLanguageModel

rhyme = """This is the house that Jack built.
This is the malt that lay in the house that Jack built.
This is the rat that ate the malt that lay in the house that Jack built.
This is the cat that killed the rat that ate the malt that lay in the house that Jack built.
This is the dog that worried the cat that killed the rat that ate the malt that lay in the house \
that Jack built.
"""
model = CharRNNLanguageModel(hidden_size=64, bptt_steps=32, random_state=0).fit([rhyme])
print(f"{model.perplexity([rhyme]):.2f} equally likely characters at each step")

# %%
for temperature in (0.3, 1.0, 2.0):
    text = model.sample(
        1, prefix="This is the ", max_length=100, temperature=temperature, random_state=0
    )[0]
    print(f"--- temperature {temperature}\n{text}\n")

# %%
# How surprising is each character, given those before it? The end of "house" is foretold, a new
# animal is not.
text = "This is the cow that"
for character, log_probability in zip(text, model.char_log_proba([text])[0]):
    if log_probability == float("-inf"):
        print(repr(character), "never seen")
    else:
        print(repr(character), "#" * round(-4 * log_probability))
