"""Experiments: what the package claims, measured; each is a command that anyone can run again.

    python -m experiments.in_the_loop jsb_snu

An experiment is a module of this package. It writes its figures to a file under
experiments/results, and its function `table()` turns these files into Markdown.
`python -m experiments FILE ...` writes the tables into documents.
"""
