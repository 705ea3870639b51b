"""Where images and labels live: the folder, the ledger, the patient split, import and export."""

from radloop.recipes import quiet as quiet  # before MONAI
