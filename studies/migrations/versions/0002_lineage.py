"""What the ids in a label's file mean, what a training was asked for, and patients who were forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # "" in an older row: its ids are those of the recipe of now, as every older release took them
    op.add_column("labels", sa.Column("ids", sa.Text, nullable=False, server_default=""))
    op.add_column("trainings", sa.Column("request", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE trainings SET state = 'failed' WHERE state = 'orphaned'")
    op.create_table(
        "forgotten",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("side", sa.String(16), nullable=False),
        sa.Column("time", sa.String(32), nullable=False),
        sa.Column("author", sa.String(255), nullable=False),
        sa.Column("rows", sa.Text, nullable=False),
        sa.Column("versions", sa.Text, nullable=False),
    )
