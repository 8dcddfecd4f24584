"""
Where does a name come from?
============================

:class:`~sklseq.rnn.CharRNNClassifier` reads a name letter by letter and tells its language; its
second head, which predicts the next letter, lets it invent names as well. The few names here only
show the calls: ``benchmarks/bench_rnn_learning.py`` has the 20,050 surnames of 18 languages.
"""

# %%
# Texts in, labels out: no vectoriser, no padding.
from sklearn.model_selection import cross_val_predict

from sklseq.rnn import CharRNNClassifier

names = {
    "Italian": """Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Bruno
        Gallo Conti Costa Giordano Mancini Rizzo Lombardi Moretti Barbieri Fontana Santoro""",
    "Japanese": """Sato Suzuki Takahashi Tanaka Watanabe Ito Yamamoto Nakamura Kobayashi Kato
        Yoshida Yamada Sasaki Yamaguchi Matsumoto Inoue Kimura Hayashi Shimizu Saito Mori Abe""",
    "Russian": """Ivanov Smirnov Kuznetsov Popov Vasiliev Petrov Sokolov Mikhailov Novikov Fedorov
        Morozov Volkov Alekseev Lebedev Semenov Egorov Pavlov Kozlov Stepanov Nikolaev Orlov""",
}
X = [name for words in names.values() for name in words.split()]
y = [language for language, words in names.items() for _ in words.split()]

model = CharRNNClassifier(hidden_size=64, random_state=0)
predicted = cross_val_predict(model, X, y, cv=4)
print("accuracy:", (predicted == y).mean().round(2))

# %%
# Probabilities of names that it has never seen; an unknown letter is no error.
model.fit(X, y)
for name in ("Bellini", "Fujimoto", "Rostov", "Ørsted"):
    probabilities = model.predict_proba([name])[0]
    print(f"{name:10s}", dict(zip(model.classes_.tolist(), probabilities.round(2).tolist())))

# %%
# Drawn from the joint model p(name) p(language | name), by language.
for language in model.classes_:
    texts, _ = model.sample(4, language, temperature=0.7, random_state=0)
    print(f"{language:10s}", ", ".join(texts))
