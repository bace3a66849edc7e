-- failing is when the first of the errors in a row came. wishes is what the client asked for, as push.Wishes encodes it and sealed as options is; NULL is nothing. kept is what waits while the process that owns
-- it is not running: a snapshot of the account, sealed likewise.
ALTER TABLE {prefix}registrations ADD COLUMN failing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE {prefix}registrations ADD COLUMN wishes BYTEA;
CREATE TABLE {prefix}kept (
	owner     TEXT COLLATE "C" NOT NULL,
	account   TEXT COLLATE "C" NOT NULL,
	state     BYTEA  NOT NULL,
	key_id    TEXT   NOT NULL,
	PRIMARY KEY (owner, account)
);
