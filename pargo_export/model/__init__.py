"""The readable PyTorch reference of a ParGo visual front-end: the executable specification.

It is written to be read and to be right, never to be fast; `pargo_export.rewrite` makes it fast.
"""
