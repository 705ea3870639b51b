-- The ledger as radloop 0.1.0 made it, with two labels, a training whose server was killed, and a split.
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES ('0001');
CREATE TABLE labels (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, study VARCHAR(255) NOT NULL, patient VARCHAR(255) NOT NULL,
    recipe VARCHAR(64) NOT NULL, author VARCHAR(255) NOT NULL, author_kind VARCHAR(32) NOT NULL, time VARCHAR(32) NOT NULL,
    parent INTEGER, shown_version VARCHAR(64) NOT NULL, checksum VARCHAR(64) NOT NULL, ext VARCHAR(16) NOT NULL,
    names TEXT NOT NULL, state VARCHAR(16) NOT NULL, origin VARCHAR(32) NOT NULL, note TEXT NOT NULL);
CREATE INDEX labels_by_study ON labels (recipe, study);
CREATE INDEX labels_by_parent ON labels (parent);
INSERT INTO labels VALUES
    (1, 'a', 'pa', 'organs', 'Ada', 'self-declared', '2026-01-05T09:00:00.000+00:00', NULL, '',
     'abababababababababababababababababababababababababababababababab', '.nii.gz', '["liver"]', 'final', 'reader', ''),
    (2, 'b', 'pb', 'organs', 'Ben', 'self-declared', '2026-01-05T09:01:00.000+00:00', NULL, '1',
     'abababababababababababababababababababababababababababababababab', '.nii.gz', '["liver", "spleen"]', 'final', 'reader', '');
CREATE TABLE shown (
    id INTEGER NOT NULL, study VARCHAR(255) NOT NULL, recipe VARCHAR(64) NOT NULL, client VARCHAR(255) NOT NULL,
    version VARCHAR(64) NOT NULL, time VARCHAR(32) NOT NULL, PRIMARY KEY (id));
CREATE INDEX shown_by_study ON shown (study, recipe, client);
CREATE TABLE originals (
    id INTEGER NOT NULL, study VARCHAR(255) NOT NULL, checksum VARCHAR(64) NOT NULL, ext VARCHAR(16) NOT NULL,
    names TEXT NOT NULL, time VARCHAR(32) NOT NULL, PRIMARY KEY (id));
CREATE INDEX originals_by_study ON originals (study);
CREATE TABLE trainings (
    id INTEGER NOT NULL, recipe VARCHAR(64) NOT NULL, pid INTEGER NOT NULL, host VARCHAR(255) NOT NULL,
    started VARCHAR(32) NOT NULL, finished VARCHAR(32) NOT NULL, state VARCHAR(16) NOT NULL, note TEXT NOT NULL,
    last_row INTEGER NOT NULL, PRIMARY KEY (id));
CREATE INDEX trainings_by_recipe ON trainings (recipe);
INSERT INTO trainings VALUES
    (1, 'organs', 4711, 'here', '2026-01-05T09:02:00.000+00:00', '2026-01-05T09:03:00.000+00:00', 'orphaned', '', 2);
CREATE TABLE patients (
    patient VARCHAR(255) NOT NULL, side VARCHAR(16) NOT NULL, time VARCHAR(32) NOT NULL, PRIMARY KEY (patient));
INSERT INTO patients VALUES ('pa', 'train', '2026-01-05T09:00:00.000+00:00'), ('pb', 'test', '2026-01-05T09:00:00.000+00:00');
CREATE TABLE settings ("key" VARCHAR(64) NOT NULL, value TEXT NOT NULL, PRIMARY KEY ("key"));
INSERT INTO settings VALUES ('salt', 'fixed');
