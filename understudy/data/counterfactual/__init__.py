"""Counterfactuals: a text about a person, rewritten so that only one attribute of the person differs.

`lexicon` holds names, pronouns and group terms, `rewrite` changes texts, `prompts` makes the bias experiment's prompts
and `augment` the training rows of a mitigation round. What cannot be rewritten rightly is refused, never guessed.
"""
