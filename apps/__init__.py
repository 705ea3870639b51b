"""The app that MONAI Label serves, its guard, and the command line."""

from radloop.recipes import quiet as quiet  # before MONAI
