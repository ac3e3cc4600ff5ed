"""From files of other people's making to a typed configuration and a strict, finite, float32 state dict.

Nothing in a file is executed. The names of the official code appear only in `key_mapping` and
`official_config`; every other module of this package uses ours.
"""
