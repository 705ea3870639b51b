"""The architectures, one file a family, built by their registered name."""

from radloop.recipes import quiet as quiet  # before MONAI
