"""A campaign as a standing question: what is new, what changed, how predictions fared, and which model answers.

`fingerprint` tells whether anything is new, `memory` keeps what the last run knew, `changes` compares two rankings,
`confronting` holds predictions against labels that came later, `drift` looks whether what comes in still resembles what
was there, `registry` and `duels` decide between the model in use and its challengers, `telling` puts it into words.
"""
