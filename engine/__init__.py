"""From a version and a study to an answer, and from labels and a budget to a version."""

from radloop.recipes import quiet as quiet  # before MONAI
