"""A clinical question as data: the recipe, its preprocessing, and the words every room shares."""

from radloop.recipes import quiet as quiet  # before MONAI
