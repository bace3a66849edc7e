-- failing is when the first of the errors in a row came. wishes is what the client asked for, as push.Wishes encodes it and sealed as options is; NULL is nothing. kept is what waits while the process that owns
-- it is not running: a snapshot of the account, sealed likewise.
ALTER TABLE {prefix}registrations ADD COLUMN failing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {prefix}registrations ADD COLUMN wishes BLOB;
CREATE TABLE {prefix}kept (
	owner     TEXT    NOT NULL,
	account   TEXT    NOT NULL,
	state     BLOB    NOT NULL,
	key_id    TEXT    NOT NULL,
	PRIMARY KEY (owner, account)
) STRICT, WITHOUT ROWID;
