"""Model versions: champion, challenger, rollback, and what each was made of."""

from radloop.recipes import quiet as quiet  # before MLflow
