"""The first tables: labels, shown answers, originals, trainings, patients and settings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=False)


def upgrade() -> None:
    op.create_table(
        "labels",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        _text("study", 255),
        _text("patient", 255),
        _text("recipe", 64),
        _text("author", 255),
        _text("author_kind", 32),
        _text("time", 32),
        sa.Column("parent", sa.Integer, nullable=True),
        _text("shown_version", 64),
        _text("checksum", 64),
        _text("ext", 16),
        sa.Column("names", sa.Text, nullable=False),
        _text("state", 16),
        _text("origin", 32),
        sa.Column("note", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("labels_by_study", "labels", ["recipe", "study"])
    op.create_index("labels_by_parent", "labels", ["parent"])
    op.create_table(
        "shown",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        _text("study", 255),
        _text("recipe", 64),
        _text("client", 255),
        _text("version", 64),
        _text("time", 32),
    )
    op.create_index("shown_by_study", "shown", ["study", "recipe", "client"])
    op.create_table(
        "originals",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        _text("study", 255),
        _text("checksum", 64),
        _text("ext", 16),
        sa.Column("names", sa.Text, nullable=False),
        _text("time", 32),
    )
    op.create_index("originals_by_study", "originals", ["study"])
    op.create_table(
        "trainings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        _text("recipe", 64),
        sa.Column("pid", sa.Integer, nullable=False),
        _text("host", 255),
        _text("started", 32),
        _text("finished", 32),
        _text("state", 16),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("last_row", sa.Integer, nullable=False),
    )
    op.create_index("trainings_by_recipe", "trainings", ["recipe"])
    op.create_table(
        "patients",
        sa.Column("patient", sa.String(255), primary_key=True),
        _text("side", 16),
        _text("time", 32),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
