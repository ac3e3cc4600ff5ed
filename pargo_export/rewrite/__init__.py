"""Exact rewrites: the reference becomes a deploy module that computes the same function faster.

One file, one rewrite. `registry` lists them in the order in which they run and says which target uses
which; `apply` runs them on a copy; `attention_forms` chooses how the projector's attention is written.
"""
