"""MONAI Label train tasks over the engine, one file a kind of answer."""

from radloop.recipes import quiet as quiet  # before MONAI
