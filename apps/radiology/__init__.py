"""The app folder that MONAI Label is given."""
