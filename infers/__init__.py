"""MONAI Label infer tasks over the predictor, one file a kind of answer."""

from radloop.recipes import quiet as quiet  # before MONAI
