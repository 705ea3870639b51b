"""What to label next, one file a strategy, and what is computed in the background for it."""

from radloop.recipes import quiet as quiet  # before MONAI
